//! An entry of a queue in 8 bytes.
