//! Reads figures of processes from Linux' `/proc`.

use std::{fs, process};

use crate::Result;

/// Returns the CPU time of all threads of a process, in seconds.
pub(crate) fn cpu(process: u32) -> Result<f64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the listing and this read.
        let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos += stat.split(' ').next().ok_or("no figures")?.parse::<u64>()?;
    }
    Ok(nanos as f64 / 1e9)
}

/// Returns the CPU time of this process, in seconds.
pub(crate) fn own_cpu() -> Result<f64> {
    cpu(process::id())
}

/// Returns the resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// Touches this many bytes of memory, or half of the free memory if that is less.
///
/// A virtual machine gets a page from its host when it first touches it. That takes several times as long as touching a
/// page that the machine has, and would distort the figures.
pub(crate) fn warm(bytes: f64) -> Result<()> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    let free = line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0;
    let mut pages = vec![0_u8; bytes.min(free / 2.0) as usize];
    pages.iter_mut().step_by(4096).for_each(|page| *page = 1);
    std::hint::black_box(&pages);
    Ok(())
}
