//! The published ports of the host, held for the VM's life. The supervisor binds them but never listens: the host's packet
//! rules translate what arrives there before a socket would get it. No other program of the host can then have such a port,
//! and the start fails if one has it already. IPv4 alone is published; a program on `[::]` that takes IPv4 too conflicts.

use crate::config::Port;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};
use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use thiserror::Error;

/// The kernel makes the smallest buffer of it. Packets arrive only while the packet rules are gone.
const RECEIVE_BYTES: usize = 1;

/// Dropping it lets the ports go.
#[derive(Default)]
pub struct HeldPorts {
    _sockets: Vec<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Display for Protocol {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[derive(Debug, Error)]
#[error("can't hold {address}/{protocol} for the VM: {source}")]
pub struct PortError {
    pub protocol: Protocol,
    pub address: SocketAddrV4,
    pub source: io::Error,
}

impl PortError {
    /// Another program of the host has it.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl HeldPorts {
    /// TCP and UDP of each.
    pub fn hold(ports: &[Port]) -> Result<Self, PortError> {
        let sockets = ports
            .iter()
            .map(|port| SocketAddrV4::new(port.address, port.port))
            .flat_map(|address| [(Protocol::Tcp, address), (Protocol::Udp, address)])
            .map(|(protocol, address)| {
                hold(protocol, address).map_err(|source| PortError {
                    protocol,
                    address,
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { _sockets: sockets })
    }
}

fn hold(protocol: Protocol, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    // An address that the host gets later, such as a floating one, may be published now.
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES)?;
    let place = SockaddrIn::from(address);
    match bind(socket.as_raw_fd(), &place) {
        // Perhaps only connections that an earlier program has closed (TIME_WAIT) are there. The option lets a bind pass them,
        // and off again it lets nobody pass this socket: neither a bind without it, nor `listen`.
        Err(nix::Error::EADDRINUSE) if protocol == Protocol::Tcp => {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            bind(socket.as_raw_fd(), &place)?;
            setsockopt(&socket, sockopt::ReuseAddr, &false)?;
        }
        bound => bound?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};

    fn port(address: Ipv4Addr, port: u16) -> Port {
        Port { address, port }
    }

    fn refused(ports: &[Port]) -> Protocol {
        let error = HeldPorts::hold(ports).err().expect("a port that is taken");
        assert!(error.is_taken(), "{error}");
        error.protocol
    }

    fn in_use<T>(bound: io::Result<T>) -> bool {
        bound
            .err()
            .is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    }

    /// A free port, which nobody else is likely to take soon.
    fn free() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
        listener.local_addr().expect("address").port()
    }

    #[test]
    fn nobody_else_has_a_port_that_is_held() {
        let number = free();
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let held = HeldPorts::hold(&[port(address, number)]).expect("hold");
            for other in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
                assert!(in_use(TcpListener::bind((other, number))));
                assert!(in_use(UdpSocket::bind((other, number))));
            }
            assert!(in_use(TcpListener::bind((Ipv6Addr::UNSPECIFIED, number))));
            drop(held);
            drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).expect("free again"));
        }
    }

    #[test]
    fn a_port_at_which_the_host_listens_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
        let number = listener.local_addr().expect("address").port();
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            assert_eq!(refused(&[port(address, number)]), Protocol::Tcp);
        }
        let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("listener");
        let number = both.local_addr().expect("address").port();
        assert_eq!(refused(&[port(Ipv4Addr::LOCALHOST, number)]), Protocol::Tcp);
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("socket");
        let number = datagrams.local_addr().expect("address").port();
        assert_eq!(
            refused(&[port(Ipv4Addr::UNSPECIFIED, number)]),
            Protocol::Udp
        );
    }

    #[test]
    fn connections_of_an_earlier_program_are_no_hindrance() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listener");
        let address = listener.local_addr().expect("address");
        let client = TcpStream::connect(address).expect("connection");
        let (server, _) = listener.accept().expect("accept");
        // The side that closes first keeps the port.
        drop((server, listener));
        drop(client);
        let held = HeldPorts::hold(&[port(Ipv4Addr::LOCALHOST, address.port())]).expect("hold");
        // `bind` of the standard library sets SO_REUSEADDR and listens.
        assert!(in_use(TcpListener::bind(address)));
        drop(held);
    }

    #[test]
    fn an_address_may_come_later() {
        drop(HeldPorts::hold(&[port(Ipv4Addr::new(192, 0, 2, 200), free())]).expect("hold"));
    }
}
