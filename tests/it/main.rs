//! adda from outside: a server process per test, real sockets, and clients as people have them.

mod accounts_cli;
mod chat;
mod cli;
mod clients;
mod closes;
mod crash;
mod disk;
mod errors;
mod floods;
mod gate;
mod history;
mod hostile_heads;
mod house;
mod lease;
mod limits;
mod origin;
mod posters;
mod proxy;
mod random;
mod reconnect;
mod rest;
mod slow;
mod support;
mod talkers;
mod tools;
