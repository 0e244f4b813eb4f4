//! Greenlets and green threads for Linux.
