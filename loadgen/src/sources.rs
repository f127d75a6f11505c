//! Where a phone calls from. A source address carries about 28,000 ports to one destination, so many phones need many addresses.
//!
//! On loopback all of 127.0.0.0/8 is ours, so the addresses are made up as needed. Towards another machine they are those the
//! operator names, and without any the kernel picks the one of the route.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Phones that share a source address: some room is left under the 28,232 ports of the default range, since the search for a free
/// one slows down as the range fills.
pub const PHONES_PER_SOURCE: u32 = 25_000;

/// The same on loopback, where addresses cost nothing: the search for a port is the most of a connect once the range is half full.
pub const PHONES_PER_LOOPBACK: u32 = 5_000;

/// The rule that gives a phone its source address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// 127.16.0.1, 127.16.0.2 and so on, the next one for each [`PHONES_PER_LOOPBACK`] phones.
    Loopback,
    /// These addresses, in turn.
    Named(Vec<IpAddr>),
    /// Whatever the kernel picks.
    Kernel,
}

impl Sources {
    /// The rule for calls to `targets`, given what the operator named.
    pub fn choose(targets: &[SocketAddr], named: Vec<IpAddr>) -> Self {
        if !named.is_empty() {
            Self::Named(named)
        } else if targets
            .iter()
            .all(|target| target.is_ipv4() && target.ip().is_loopback())
        {
            Self::Loopback
        } else {
            Self::Kernel
        }
    }

    /// The address that phone `number` calls from; `None` leaves it to the kernel.
    ///
    /// It follows from the number alone, so that processes which share a load by ranges of numbers don't share source ports.
    pub fn of(&self, number: u32) -> Option<IpAddr> {
        let range = number / self.each();
        match self {
            Self::Loopback => Some(IpAddr::V4(Ipv4Addr::from(
                u32::from(Ipv4Addr::new(127, 16, 0, 1)) + range,
            ))),
            Self::Named(addresses) => Some(addresses[range as usize % addresses.len()]),
            Self::Kernel => None,
        }
    }

    /// The same towards an address that only turned up during the run; the kernel decides where ours can't lead there.
    pub fn towards(&self, target: SocketAddr, number: u32) -> Option<IpAddr> {
        self.of(number).filter(|source| {
            source.is_ipv4() == target.is_ipv4()
                && (*self != Self::Loopback || target.ip().is_loopback())
        })
    }

    /// Phones that share an address.
    pub fn each(&self) -> u32 {
        match self {
            Self::Loopback => PHONES_PER_LOOPBACK,
            Self::Named(_) | Self::Kernel => PHONES_PER_SOURCE,
        }
    }

    /// How many phones the addresses can carry to one destination, `ports` being the size of the local port range.
    pub fn capacity(&self, ports: u32) -> u64 {
        match self {
            Self::Loopback => u64::from(u32::MAX),
            Self::Named(addresses) => {
                addresses.len() as u64 * u64::from(ports.min(PHONES_PER_SOURCE))
            }
            Self::Kernel => u64::from(ports),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_spreads_by_range() {
        let sources = Sources::choose(&["127.0.0.1:1883".parse().unwrap()], Vec::new());
        assert_eq!(sources, Sources::Loopback);
        assert_eq!(sources.of(0).unwrap().to_string(), "127.16.0.1");
        assert_eq!(sources.of(4_999).unwrap().to_string(), "127.16.0.1");
        assert_eq!(sources.of(5_000).unwrap().to_string(), "127.16.0.2");
        assert!(sources.of(u32::MAX).unwrap().is_loopback());
    }

    #[test]
    fn elsewhere_the_operator_or_the_kernel_decides() {
        let target = ["192.0.2.1:1883".parse().unwrap()];
        assert_eq!(Sources::choose(&target, Vec::new()).of(7), None);
        let named = Sources::choose(
            &target,
            vec!["192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap()],
        );
        assert_eq!(named.of(25_000).unwrap().to_string(), "192.0.2.8");
        assert_eq!(named.capacity(28_232), 50_000);
        assert_eq!(named.towards(target[0], 0), named.of(0));
        assert_eq!(named.towards("[2001:db8::1]:1".parse().unwrap(), 0), None);
        assert_eq!(Sources::Loopback.towards(target[0], 7), None);
    }
}
