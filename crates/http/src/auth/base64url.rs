//! base64url without padding (RFC 4648, section 5), for the keys of JWK sets and for cookie values.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Encodes `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=three.len()].copy_from_slice(three);
        let group = u32::from_be_bytes(group);
        for place in 0..=three.len() {
            let digit = (group >> (18 - 6 * place)) & 0x3f;
            text.push(char::from(DIGITS[digit as usize]));
        }
    }
    text
}

/// Decodes `text`; `None` if it is invalid or not the canonical form that [`encode`] writes.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for four in text.as_bytes().chunks(4) {
        let mut group = 0;
        for digit in four {
            let value = DIGITS.iter().position(|known| known == digit)?;
            group = group << 6 | u32::try_from(value).ok()?;
        }
        // The bits of missing digits.
        group <<= 6 * (4 - four.len());
        let length = four.len() - 1;
        let [_, all @ ..] = group.to_be_bytes();
        let (own, rest) = all.split_at(length);
        if length == 0 || rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(own);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xfb, 0xff, 0xfe], "-__-"),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes));
        }
        for bad in ["Z", "Zg==", "Zm9vY", "Zh", "Zm9", "a+b/", "Zm 9v", "\u{e9}"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
