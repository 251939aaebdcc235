//! A network of its own for a process, whose packets can be lost without a word. Needs root.

use std::process::{Child, Command, Stdio};

/// A network space with one wire to this machine. Gone with the value.
pub struct Island {
    keeper: Child,
    /// Of this three are used: the net, this machine, the process.
    net: String,
}

impl Island {
    /// None without the rights, which is said.
    pub fn make(test: &str) -> Option<Island> {
        let island = Island::try_make();
        if island.is_none() {
            eprintln!("SKIPPED: a network space of its own needs root and `ip`: {test}");
        }
        island
    }

    fn try_make() -> Option<Island> {
        // ends with this process, and the space with it
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo ready; exec sleep 1000000"]);
        let mut keeper = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut ready = [0; 6];
        let is_ready = std::io::Read::read_exact(keeper.stdout.as_mut()?, &mut ready).is_ok();
        let net = format!("10.{}.{}", fastrand::u8(64..), fastrand::u8(..));
        let island = Island { keeper, net };
        let wire = format!("gw{:08x}", fastrand::u32(..));
        let inside = island.process().to_string();
        let made = is_ready
            && ip(&["link", "add", &wire, "type", "veth", "peer", "name", "wire", "netns", &inside])
            && ip(&["address", "add", &format!("{}.1/24", island.net), "dev", &wire])
            && ip(&["link", "set", &wire, "up"])
            && island.ip_inside(&["address", "add", &format!("{}.2/24", island.net), "dev", "wire"])
            && island.ip_inside(&["link", "set", "wire", "up"])
            && island.ip_inside(&["link", "set", "lo", "up"]);
        made.then_some(island)
    }

    /// Whose network space it is.
    pub fn process(&self) -> u32 {
        self.keeper.id()
    }

    /// This machine, as seen from inside.
    pub fn here(&self) -> String {
        format!("{}.1", self.net)
    }

    /// From now on nothing that is sent to the inside arrives, and nobody is told.
    pub fn lose_packets(&self, lose: bool) {
        let verb = if lose { "add" } else { "delete" };
        assert!(ip(&["route", verb, "blackhole", &format!("{}.2/32", self.net)]));
    }

    fn ip_inside(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.process().to_string(), "--net", "ip"]).args(arguments);
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["route", "delete", "blackhole", &format!("{}.2/32", self.net)]).stderr(Stdio::null()).status();
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
