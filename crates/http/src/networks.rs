//! IP networks in CIDR notation.

use std::net::IpAddr;

/// Addresses and networks such as `10.0.0.0/8`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Networks {
    /// The networks in `texts`; `None` if one of them is invalid. A bare address is a network of one address.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let networks = texts.into_iter().map(Network::parse);
        Some(Self(networks.collect::<Option<_>>()?))
    }

    /// Whether `address` is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            // `u32` also parses `+8`.
            Some(bits) if !bits.bytes().all(|byte| byte.is_ascii_digit()) => return None,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        // A shift by the full width overflows: the network `/0` has all addresses.
        let rest = width - self.bits;
        own.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_networks() {
        let networks = Networks::parse([" 10.0.0.0/8", "192.168.7.7", "fd00::/8", "::1"]).unwrap();
        for (address, inside) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.168.7.7", true),
            ("192.168.7.8", false),
            ("::ffff:10.1.2.3", true),
            ("fdff::1", true),
            ("fe00::1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(
                networks.contain(address.parse().unwrap()),
                inside,
                "{address}"
            );
        }
        let all = Networks::parse(["0.0.0.0/0", "::/0"]).unwrap();
        assert!(
            ["1.2.3.4", "::"]
                .iter()
                .all(|text| all.contain(text.parse().unwrap()))
        );
        assert!(!Networks::default().contain("127.0.0.1".parse().unwrap()));
        for bad in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "localhost",
            "::/129",
        ] {
            assert_eq!(Networks::parse([bad]), None, "{bad}");
        }
    }
}
