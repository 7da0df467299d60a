//! adda from outside: a server process per test, real sockets, and clients as people have them.

mod chat;
mod cli;
mod clients;
mod closes;
mod errors;
mod floods;
mod hostile_heads;
mod house;
mod limits;
mod origin;
mod reconnect;
mod rest;
mod slow;
mod support;
mod tools;
