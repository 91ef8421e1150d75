//! /proc/PID/stat (proc_pid_stat(5)).

use std::fs;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stat {
    pub parent: i32,
    pub session: i32,
    /// In clock ticks.
    pub user_time: u64,
    pub system_time: u64,
    /// In clock ticks since the kernel's own start. With the id it tells a process from any later one.
    pub start_time: u64,
    pub resident_pages: u64,
}

impl Stat {
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name, field 2, stands in parentheses and may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        Some(Self {
            parent: fields.nth(1)?.parse().ok()?,
            session: fields.nth(1)?.parse().ok()?,
            user_time: fields.nth(7)?.parse().ok()?,
            system_time: fields.next()?.parse().ok()?,
            start_time: fields.nth(6)?.parse().ok()?,
            resident_pages: fields.nth(1)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_can_not_forge_the_fields() {
        let text = "7 (a) b) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25";
        let stat = Stat {
            parent: 4,
            session: 6,
            user_time: 14,
            system_time: 15,
            start_time: 22,
            resident_pages: 24,
        };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert!(Stat::of(std::process::id()).is_some());
    }

    proptest! {
        #[test]
        fn any_stat_is_read(text in ".{0,100}") {
            let _ = Stat::parse(&text);
        }
    }
}
