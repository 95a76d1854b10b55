//! G12: an unfinished stream never looks finished.

mod arrival;
mod client;
mod expected;
mod let_go;
mod old_http;
mod stage;
mod ways;
