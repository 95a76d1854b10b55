//! What Linux says of a process: `/proc`.

use std::{fs, process};

use crate::Result;

/// The CPU time of all its threads, in seconds.
pub(crate) fn cpu(process: u32) -> Result<f64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos += stat.split(' ').next().ok_or("no figures")?.parse::<u64>()?;
    }
    Ok(nanos as f64 / 1e9)
}

/// The CPU time of this process, in seconds.
pub(crate) fn own_cpu() -> Result<f64> {
    cpu(process::id())
}

/// Its resident memory, in bytes.
pub(crate) fn resident(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
