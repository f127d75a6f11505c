//! How bytes get from and to a client: plain TCP. Never knows what the bytes mean, never keeps any.

pub mod tcp;
