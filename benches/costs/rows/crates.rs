//! The number of crates in the default build.

use std::{collections::BTreeSet, env, process::Command};

use crate::{
    Options, Result,
    figure::{Goal, Line},
};

pub(crate) const WHAT: &str = "crates in the default build";

/// Crates that must not be among them.
const NOT: [&str; 4] = ["redis", "uuid", "regex", "chrono"];

pub(crate) fn measure(_: &Options) -> Result<Vec<Line>> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["tree", "-e", "normal", "--prefix", "none", "--no-dedupe", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()?;
    let tree = String::from_utf8(output.stdout)?;
    let crates: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let others: Vec<_> = crates.into_iter().filter(|name| !name.is_empty() && *name != "resilient-sse").collect();
    if let Some(name) = others.iter().find(|name| NOT.contains(name)) {
        return Err(format!("{name} is in the default build").into());
    }
    Ok(vec![Line::new(WHAT, "cargo tree -e normal", "", Goal::AtMost(30.0), vec![others.len() as f64])])
}
