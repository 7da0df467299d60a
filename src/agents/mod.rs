//! Sources of changes other than clients of the chat: parts of the process that propose changes by themselves or for
//! other processes.

pub mod control;
