//! The few requests of routing netlink that a VM needs (structures and numbers: linux/rtnetlink.h, linux/fib_rules.h).

use super::message::{Message, read_acknowledgement};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

const REQUEST: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
/// Replaces, so that a corrected request may follow one that failed half-way.
const SET: u16 = REQUEST | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const CREATE: u16 = REQUEST | libc::NLM_F_CREATE as u16;

/// This link leads to the gateway, whatever the addresses say.
const RTNH_F_ONLINK: u32 = 4;
const FRA_DST: u16 = 1;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;
const FR_ACT_TO_TBL: u8 = 1;
const PORT_RULE_PRIORITY: u32 = 10;
const LOCAL_RULE_PRIORITY: u32 = 32;
/// Larger than any acknowledgement: those quote the request.
const ANSWER_BYTES: usize = 16 << 10;

/// A socket of the kernel's routing netlink: requests go out, acknowledgements come back.
pub struct Route {
    socket: OwnedFd,
}

pub struct NewRoute {
    pub index: u32,
    /// None for the default route.
    pub destination: Option<IpAddr>,
    pub prefix_length: u8,
    pub gateway: IpAddr,
    pub source: Option<IpAddr>,
    pub table: u8,
}

impl Route {
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self { socket })
    }

    /// The kernel writes its answer within the call that sends the request.
    fn ask(&self, message: Message) -> io::Result<()> {
        let socket = self.socket.as_raw_fd();
        send(socket, &message.finish(), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        let length = recv(socket, &mut answer, MsgFlags::empty())?;
        read_acknowledgement(&answer[..length])
    }

    /// Without `mtu` the MTU stays as it is.
    pub fn link_up(&self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        // struct ifinfomsg: family, padding, type, index, flags, mask of flags.
        let fixed = [[0; 4], index.to_ne_bytes(), up, up].concat();
        let mut message = Message::new(libc::RTM_NEWLINK, REQUEST, &fixed);
        if let Some(mtu) = mtu {
            message = message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.ask(message)
    }

    pub fn add_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix_length: u8,
        on_link: bool,
    ) -> io::Result<()> {
        let no_route = if on_link {
            0
        } else {
            libc::IFA_F_NOPREFIXROUTE
        };
        let flags = libc::IFA_F_PERMANENT | libc::IFA_F_NODAD | no_route;
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let fixed = [
            &[family(address), prefix_length, 0, libc::RT_SCOPE_UNIVERSE][..],
            &index.to_ne_bytes(),
        ]
        .concat();
        let octets = octets(address);
        self.ask(
            Message::new(libc::RTM_NEWADDR, SET, &fixed)
                .attribute(libc::IFA_LOCAL, &octets)
                .attribute(libc::IFA_ADDRESS, &octets)
                .attribute(libc::IFA_FLAGS, &flags.to_ne_bytes()),
        )
    }

    pub fn add_route(&self, route: &NewRoute) -> io::Result<()> {
        let fixed = route_header(family(route.gateway), route.prefix_length, route.table);
        let mut message = Message::new(libc::RTM_NEWROUTE, SET, &fixed)
            .attribute(libc::RTA_OIF, &route.index.to_ne_bytes())
            .attribute(libc::RTA_GATEWAY, &octets(route.gateway));
        if let Some(destination) = route.destination {
            message = message.attribute(libc::RTA_DST, &octets(destination));
        }
        if let Some(source) = route.source {
            message = message.attribute(libc::RTA_PREFSRC, &octets(source));
        }
        self.ask(message)
    }

    /// Moves the rule from the first place to a later one: adds it there, then removes the first.
    pub fn move_local_table(&self) -> io::Result<()> {
        let fixed = rule_header(0, libc::RT_TABLE_LOCAL);
        self.ask(
            Message::new(libc::RTM_NEWRULE, CREATE, &fixed)
                .attribute(FRA_PRIORITY, &LOCAL_RULE_PRIORITY.to_ne_bytes()),
        )?;
        self.ask(
            Message::new(libc::RTM_DELRULE, REQUEST, &fixed)
                .attribute(FRA_PRIORITY, &0_u32.to_ne_bytes()),
        )
    }

    /// Connections of this machine's own to `address` and `port` are routed by `table`.
    pub fn add_port_rule(
        &self,
        address: IpAddr,
        protocol: u8,
        port: u16,
        table: u8,
    ) -> io::Result<()> {
        let range = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
        self.ask(
            Message::new(libc::RTM_NEWRULE, CREATE, &rule_header(32, table))
                .attribute(FRA_PRIORITY, &PORT_RULE_PRIORITY.to_ne_bytes())
                .attribute(FRA_IIFNAME, b"lo\0")
                .attribute(FRA_DST, &octets(address))
                .attribute(FRA_IP_PROTO, &[protocol])
                .attribute(FRA_DPORT_RANGE, &range),
        )
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    family as u8
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// struct rtmsg: family, both prefix lengths, type of service, table, protocol, scope, kind, flags.
fn route_header(family: u8, prefix_length: u8, table: u8) -> [u8; 12] {
    let [a, b, c, d] = (RTNH_F_ONLINK).to_ne_bytes();
    let protocol = libc::RTPROT_STATIC;
    let kind = libc::RTN_UNICAST;
    let scope = libc::RT_SCOPE_UNIVERSE;
    [
        family,
        prefix_length,
        0,
        0,
        table,
        protocol,
        scope,
        kind,
        a,
        b,
        c,
        d,
    ]
}

/// struct fib_rule_hdr, of IPv4: family, both prefix lengths, type of service, table, two reserved, action, flags.
fn rule_header(destination_length: u8, table: u8) -> [u8; 12] {
    let family = libc::AF_INET as u8;
    [
        family,
        destination_length,
        0,
        0,
        table,
        0,
        0,
        FR_ACT_TO_TBL,
        0,
        0,
        0,
        0,
    ]
}
