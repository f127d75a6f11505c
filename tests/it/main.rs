//! The one integration binary: the real server, driven from outside.

mod cli;
mod simulation;
