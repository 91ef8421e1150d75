//! The VM's network interface, set up from the host's message: no DHCP, no waiting for duplicate addresses.

mod message;
mod route;

use crate::console;
use litegix_protocol::guest::{NetworkInterface, OutsidePorts};
use route::Route;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// The table of connections to other tasks' ports, which leave the VM although their address is its own.
const OUTSIDE_TABLE: u8 = 77;
/// The index of `lo`, in each network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// An address of 4 or 16 bytes.
fn address(bytes: &[u8]) -> io::Result<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("an address of {} bytes", bytes.len()),
        )
    })
}

fn optional(bytes: &[u8]) -> io::Result<Option<IpAddr>> {
    if bytes.is_empty() {
        Ok(None)
    } else {
        address(bytes).map(Some)
    }
}

/// The kernel itself then gives `lo` its addresses, 127.0.0.1 and ::1.
pub fn bring_loopback_up() -> io::Result<()> {
    Route::open()?.link_up(LOOPBACK_INDEX, None)
}

pub fn set_up(wanted: &NetworkInterface) -> io::Result<()> {
    let name = device_with(&wanted.mac)?;
    let index = read(&name, "ifindex")?.parse().map_err(io::Error::other)?;
    let six = wanted
        .addresses
        .iter()
        .any(|address| address.address.len() == 16);
    let switches = if six {
        [("accept_ra", "0"), ("accept_dad", "0")]
    } else {
        [("accept_ra", "0"), ("disable_ipv6", "1")]
    };
    for (switch, value) in switches {
        // A kernel without IPv6 has none of them.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{switch}"), value);
    }
    let kernel = Route::open()?;
    kernel.link_up(index, Some(wanted.mtu))?;
    for item in &wanted.addresses {
        let own = address(&item.address)?;
        kernel.add_address(index, own, prefix(item.prefix_length)?, item.on_link)?;
    }
    for route in &wanted.routes {
        kernel.add_route(&route::NewRoute {
            index,
            destination: optional(&route.destination)?,
            prefix_length: prefix(route.prefix_length)?,
            gateway: address(&route.gateway)?,
            source: optional(&route.source)?,
            table: libc::RT_TABLE_MAIN,
        })?;
    }
    if let Some(ports) = &wanted.outside_ports {
        // Kernels without policy routing can't: other tasks are then reached by the gateway's address only.
        console::warn_on_error("ports outside", lead_outside(&kernel, &name, index, ports));
    }
    Ok(())
}

fn prefix(length: u32) -> io::Result<u8> {
    u8::try_from(length).map_err(io::Error::other)
}

fn lead_outside(kernel: &Route, name: &str, index: u32, ports: &OutsidePorts) -> io::Result<()> {
    // The answers come from addresses of the VM's own.
    for switch in ["route_localnet", "accept_local"] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{name}/{switch}"), "1")?;
    }
    let gateway = address(&ports.gateway)?;
    kernel.add_route(&route::NewRoute {
        index,
        destination: None,
        prefix_length: 0,
        gateway,
        source: optional(&ports.source)?,
        table: OUTSIDE_TABLE,
    })?;
    // The kernel asks its table of local addresses first; the new rules must come before it.
    kernel.move_local_table()?;
    for own in &ports.addresses {
        let own = address(own)?;
        for port in &ports.ports {
            let port = u16::try_from(*port).map_err(io::Error::other)?;
            for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
                kernel.add_port_rule(own, protocol as u8, port, OUTSIDE_TABLE)?;
            }
        }
    }
    Ok(())
}

fn read(device: &str, what: &str) -> io::Result<String> {
    let path = Path::new("/sys/class/net").join(device).join(what);
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

fn device_with(mac: &[u8]) -> io::Result<String> {
    let wanted = mac
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":");
    for entry in fs::read_dir("/sys/class/net")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if read(&name, "address").is_ok_and(|seen| seen == wanted) {
            return Ok(name);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no network device has the address {wanted}; the kernel needs virtio_net"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_four_or_sixteen_bytes() {
        assert_eq!(
            address(&[10, 0, 0, 1]).unwrap(),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
        assert!(address(&[0; 16]).unwrap().is_ipv6());
        assert!(address(&[0; 5]).is_err());
        assert_eq!(optional(&[]).unwrap(), None);
    }
}
