//! G6: nothing leaks.

mod leaks;
