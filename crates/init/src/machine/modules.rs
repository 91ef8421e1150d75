//! The kernel's modules, in the order of /modules/order. Each line names a file, and may name the condition without
//! which it is useless. A kernel with everything built in has no such list.

use crate::console;
use crate::machine::steps;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

const DIRECTORY: &str = "/modules";
const VIRTIO_DEVICES: &str = "/sys/bus/virtio/devices";
const CLOCK_SOURCES: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
/// With it the host can reach the guest.
const TRANSPORT: &str = "vmw_vsock_virtio_transport.ko";

#[derive(Debug, PartialEq)]
struct Entry {
    file: String,
    condition: Option<Condition>,
}

#[derive(Debug, PartialEq)]
enum Condition {
    /// A device of this type, as in the virtio specification: 1 is a network card.
    VirtioDevice(u32),
    /// The hypervisor is KVM.
    Kvm,
}

impl Condition {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "kvm" => Some(Self::Kvm),
            number => number.parse().ok().map(Self::VirtioDevice),
        }
    }
}

/// The modules that mounting the task's root needs.
const LAYERS: [&str; 3] = ["virtio_blk.ko", "squashfs.ko", "overlay.ko"];

/// The modules that are not loaded yet.
pub struct Modules(Vec<Entry>);

impl Modules {
    pub fn listed() -> Self {
        let order = fs::read_to_string(Path::new(DIRECTORY).join("order")).unwrap_or_default();
        Self(parse(&order))
    }

    /// Loads what the transport to the host builds upon; then a socket can be bound.
    pub fn load_before_transport(&mut self) {
        let Some(at) = self.0.iter().position(|entry| entry.file == TRANSPORT) else {
            return;
        };
        load_all(self.0.drain(..at));
    }

    /// Loads the modules with which the task's root is mounted, and all in front of them in the list: the transport.
    pub fn load_for_layers(&mut self) {
        load_all(self.0.drain(..end_of_layers(&self.0)));
    }

    pub fn load_rest(self) {
        load_all(self.0.into_iter());
    }
}

fn end_of_layers(entries: &[Entry]) -> usize {
    entries
        .iter()
        .rposition(|entry| LAYERS.contains(&entry.file.as_str()))
        .map_or(0, |last| last + 1)
}

fn load_all(entries: impl Iterator<Item = Entry>) {
    let mut devices = None;
    for entry in entries {
        let useful = match entry.condition {
            None => true,
            Some(Condition::VirtioDevice(wanted)) => {
                devices.get_or_insert_with(virtio_devices).contains(&wanted)
            }
            Some(Condition::Kvm) => runs_on_kvm(),
        };
        if useful {
            load(&entry);
        }
    }
}

fn parse(order: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some(Entry {
            file: words.next()?.to_owned(),
            condition: words.next().and_then(Condition::parse),
        })
    };
    order.lines().filter_map(entry).collect()
}

fn load(entry: &Entry) {
    let name = &entry.file;
    let load = || -> io::Result<()> {
        let file = File::open(Path::new(DIRECTORY).join(name))?;
        finit_module(&file, c"", ModuleInitFlags::empty())?;
        Ok(())
    };
    match load() {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            console::warn(&format!("module {name}: {error}"));
        }
        _ => steps::done(name.clone()),
    }
}

/// The kernel offers KVM's clock if the hypervisor says that it is KVM.
fn runs_on_kvm() -> bool {
    fs::read_to_string(CLOCK_SOURCES)
        .is_ok_and(|sources| sources.split_ascii_whitespace().any(|it| it == "kvm-clock"))
}

/// The types of the devices that the VMM gave this machine.
fn virtio_devices() -> HashSet<u32> {
    let Ok(entries) = fs::read_dir(VIRTIO_DEVICES) else {
        return HashSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("device")).ok())
        .filter_map(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_a_file_and_perhaps_a_condition() {
        let entry = |file: &str, condition| Entry {
            file: file.to_owned(),
            condition,
        };
        assert_eq!(
            parse("virtio.ko\n\nvirtio_net.ko 1\nptp_kvm.ko kvm\n"),
            [
                entry("virtio.ko", None),
                entry("virtio_net.ko", Some(Condition::VirtioDevice(1))),
                entry("ptp_kvm.ko", Some(Condition::Kvm)),
            ]
        );
        assert_eq!(parse(""), []);
    }

    #[test]
    fn the_layers_modules_end_with_the_last_of_theirs() {
        assert_eq!(
            end_of_layers(&parse("a.ko\nvirtio_blk.ko\noverlay.ko\nvirtio_net.ko 1")),
            3
        );
        assert_eq!(end_of_layers(&parse("virtio_net.ko 1")), 0);
    }
}
