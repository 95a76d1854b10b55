//! G10: the inner bytes are respected.

mod bytes_pass;
mod endings;
mod framing;
mod touched;
mod vectors;
