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

/// Touches this much memory, or half of what is free: a virtual machine is handed pages by its host when it first touches
/// them, which takes several times as long as a page that the machine has, and is not to be in a figure.
pub(crate) fn warm(bytes: f64) -> Result<()> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    let free = line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0;
    let mut pages = vec![0_u8; bytes.min(free / 2.0) as usize];
    pages.iter_mut().step_by(4096).for_each(|page| *page = 1);
    std::hint::black_box(&pages);
    Ok(())
}
