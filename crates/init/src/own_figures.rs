//! What init itself uses. A guest runs for months: a leak here would show in the host's figures.

use std::fs;

#[derive(Debug, Default, PartialEq)]
pub struct OwnFigures {
    pub resident_bytes: u64,
    pub descriptors: u32,
    /// Ended ones that have not been reaped included.
    pub children: u32,
}

pub fn read() -> OwnFigures {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let entries = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let children: usize = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default())
        .map(|children| children.split_ascii_whitespace().count())
        .sum();
    OwnFigures {
        resident_bytes: resident_bytes(&status).unwrap_or(0),
        // The directory's own descriptor is among them.
        descriptors: u32::try_from(entries.saturating_sub(1)).unwrap_or(u32::MAX),
        children: u32::try_from(children).unwrap_or(u32::MAX),
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        let figures = read();
        assert!(figures.resident_bytes > 1 << 16);
        assert!(figures.descriptors >= 3);
        assert_eq!(
            resident_bytes("VmSize:\t 9 kB\nVmRSS:\t  12 kB\n"),
            Some(12_288)
        );
        assert_eq!(resident_bytes(""), None);
    }
}
