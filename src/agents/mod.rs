//! Parts of the process that propose changes by themselves, or take them from elsewhere than a client of the chat.

pub mod control;
