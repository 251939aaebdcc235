//! Who this process is, and whether another process of this machine still lives. Linux tells both in `/proc`.

use std::fs;

use godwit_model::Holder;

use crate::tenure::Life;

/// This process as a lease's holder.
pub fn this_process() -> Holder {
    let pid = std::process::id();
    Holder {
        host: fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_else(|_| "unknown".to_owned()),
        boot: boot(),
        pid,
        started: started(pid).unwrap_or(0),
    }
}

/// Whether the holder lives. Speaks only of this boot and this process space: a pid says nothing in another container.
pub fn life_of(holder: &Holder) -> Life {
    if holder.boot.is_empty() || holder.boot != boot() || holder.started == 0 {
        return Life::Unknown;
    }
    match started(holder.pid) {
        Some(started) if started == holder.started => Life::Alive,
        _ => Life::Gone,
    }
}

/// The kernel's boot id and the process space; empty where they cannot be read.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let space = fs::read_link("/proc/self/ns/pid");
    match (id, space) {
        (Ok(id), Ok(space)) => format!("{} {}", id.trim(), space.display()),
        _ => String::new(),
    }
}

/// Field 22 of `/proc/PID/stat`, behind the command's name, which may hold anything. None for a zombie: it writes no more.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_one_with_another_start_time_is_gone() {
        let me = this_process();
        assert_eq!(life_of(&me), Life::Alive);
        assert_eq!(life_of(&Holder { started: me.started + 1, ..me.clone() }), Life::Gone);
        assert_eq!(life_of(&Holder { boot: "another".into(), ..me }), Life::Unknown);
    }
}
