//! The machine a figure belongs to, and whether others were using it.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::Outcome;

/// Long enough that a tick of the clock is below one percent.
const LOOK: Duration = Duration::from_secs(2);

pub fn describe() -> Outcome<String> {
    let cores = thread::available_parallelism()?;
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let memory = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1_048_576;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let system = field("/etc/os-release", "PRETTY_NAME").unwrap_or_default();
    Ok(format!("{cores} cores ({model}), {memory} GiB memory, {}, Linux {}", system.trim_matches('"'), kernel.trim()))
}

/// The share of all cores' time in which something ran, while the benchmark itself did nothing.
pub fn busy() -> Outcome<f64> {
    let (busy_before, all_before) = ticks()?;
    thread::sleep(LOOK);
    let (busy_after, all_after) = ticks()?;
    Ok((busy_after - busy_before) as f64 / (all_after - all_before).max(1) as f64)
}

fn ticks() -> Outcome<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let counts: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|count| count.parse().ok()).collect();
    let all: u64 = counts.iter().sum();
    // idle and waiting for a disk
    let idle: u64 = counts.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once([':', '='])?.1.trim().to_owned())
}
