//! Content codings of request bodies.

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use warp::http::header::{CONTENT_ENCODING, HeaderMap};

use super::problem::Problem;

/// The largest window that RFC 8878 recommends decoders to support: 8 MiB. A frame with a larger window is refused.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Most members of a body. Programs that compress in blocks write members of 64 KiB or more. Opening one takes microseconds.
const MAX_MEMBERS: usize = 4_096;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The compression of a body that should be text, detected by its magic bytes, which valid UTF-8 never begins with.
pub(super) fn detect_compression(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

impl Encoding {
    /// The coding in the headers. 415 for an unknown coding or more than one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut encoding = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.to_str().unwrap_or("?").split(',') {
                let next = match name.trim().to_ascii_lowercase().as_str() {
                    "identity" | "" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "zstd" => Self::Zstd,
                    _ => return Err(unsupported()),
                };
                if encoding != Self::Identity {
                    return Err(unsupported());
                }
                encoding = next;
            }
        }
        Ok(encoding)
    }

    /// Decompresses `body`, to at most `limit` bytes. Takes CPU time in proportion to the decompressed size, and memory of
    /// at most twice that size.
    pub(super) fn decode(self, body: &[u8], limit: u64) -> Result<Vec<u8>, Problem> {
        match self {
            Self::Identity => Ok(body.to_vec()),
            Self::Gzip => members(body, limit, |rest, decoded| {
                let mut decoder = GzipDecoder::new(rest);
                read(&mut decoder, decoded, limit)?;
                Ok(decoder.into_inner())
            }),
            Self::Zstd => members(body, limit, |rest, decoded| {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                let mut decoder = ZstdDecoder::with_params(rest, &window);
                read(&mut decoder, decoded, limit)?;
                Ok(decoder.into_inner())
            }),
        }
    }
}

fn unsupported() -> Problem {
    Problem::unsupported("content-encoding must be gzip, zstd or identity, and only one of them")
}

/// Decompresses each member (gzip) or frame (zstd) of `body` with `next`, which returns the rest of the body. The number
/// of members is limited, because an empty member of 20 bytes or less costs as much CPU as one with some content.
fn members<'b>(
    body: &'b [u8],
    limit: u64,
    next: impl Fn(&'b [u8], &mut Vec<u8>) -> Result<&'b [u8], Problem>,
) -> Result<Vec<u8>, Problem> {
    let mut decoded = Vec::new();
    let mut rest = body;
    for _ in 0..MAX_MEMBERS {
        rest = next(rest, &mut decoded)?;
        if decoded.len() as u64 > limit {
            return Err(Problem::too_large(limit));
        }
        if rest.is_empty() {
            return Ok(decoded);
        }
    }
    Err(Problem::bad_request(
        "malformed",
        format!("the body has more than {MAX_MEMBERS} compressed members: compress it as a whole"),
    ))
}

/// Appends one member to `decoded`, up to a total of `limit` and one byte.
fn read(
    decoder: &mut (impl AsyncRead + Unpin),
    decoded: &mut Vec<u8>,
    limit: u64,
) -> Result<(), Problem> {
    let left = (limit + 1).saturating_sub(decoded.len() as u64);
    // The source is memory, so the future is ready at once.
    let result = decoder.take(left).read_to_end(decoded).now_or_never();
    let detail = match result {
        Some(Ok(_)) => return Ok(()),
        // The decoder has no error kind for this, only a message.
        Some(Err(error)) if error.to_string().contains("too much memory") => {
            "the zstd frame needs a window of more than 8 MiB: compress without --long and --ultra, or send smaller bodies"
        }
        _ => {
            "the body can't be decompressed: it is damaged, cut off, or not what content-encoding says"
        }
    };
    Err(Problem::bad_request("malformed", detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};

    const LIMIT: u64 = 1 << 20;

    fn compressed(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
        fn all(mut encoder: impl AsyncRead + Unpin) -> Vec<u8> {
            let mut out = Vec::new();
            encoder
                .read_to_end(&mut out)
                .now_or_never()
                .unwrap()
                .unwrap();
            out
        }
        match encoding {
            Encoding::Identity => plain.to_vec(),
            Encoding::Gzip => all(GzipEncoder::new(plain)),
            Encoding::Zstd => all(ZstdEncoder::new(plain)),
        }
    }

    #[test]
    fn headers_name_the_coding() {
        let of = |values: &[&str]| {
            let headers = values
                .iter()
                .map(|value| (CONTENT_ENCODING, value.parse().unwrap()));
            Encoding::of(&HeaderMap::from_iter(headers)).map_err(|problem| problem.summary().0)
        };
        assert_eq!(of(&[]), Ok(Encoding::Identity));
        assert_eq!(of(&["identity"]), Ok(Encoding::Identity));
        assert_eq!(of(&["GZIP"]), Ok(Encoding::Gzip));
        assert_eq!(of(&["x-gzip, identity"]), Ok(Encoding::Gzip));
        assert_eq!(of(&["zstd"]), Ok(Encoding::Zstd));
        for bad in [
            &["br"][..],
            &["deflate"],
            &["gzip, gzip"],
            &["gzip", "zstd"],
            &["\u{e9}"],
        ] {
            assert_eq!(of(bad), Err(415), "{bad:?}");
        }
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let once = compressed(encoding, b"one\n");
            let twice = [
                once.clone(),
                compressed(encoding, b""),
                compressed(encoding, b"two"),
            ]
            .concat();
            assert_eq!(encoding.decode(&once, LIMIT).unwrap(), b"one\n");
            assert_eq!(encoding.decode(&twice, LIMIT).unwrap(), b"one\ntwo");
            let all = vec![7; 1 << 20];
            assert_eq!(
                encoding.decode(&compressed(encoding, &all), LIMIT).unwrap(),
                all
            );
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let bomb = compressed(encoding, &vec![0; 64 << 20]);
            assert!(bomb.len() < 100_000);
            assert_eq!(
                encoding.decode(&bomb, LIMIT).unwrap_err().summary(),
                (413, "too_large")
            );
        }
    }

    #[test]
    fn a_window_that_is_too_large_is_named() {
        use async_compression::Level;
        use async_compression::zstd::CParameter;
        let parameters = [CParameter::window_log(ZSTD_WINDOW_LOG + 1)];
        let plain = vec![7; 1 << 20];
        let mut encoder =
            ZstdEncoder::with_quality_and_params(&*plain, Level::Default, &parameters);
        let mut frame = Vec::new();
        let whole = encoder.read_to_end(&mut frame).now_or_never();
        whole.unwrap().unwrap();
        let problem = Encoding::Zstd.decode(&frame, LIMIT).unwrap_err();
        assert_eq!(problem.summary(), (400, "malformed"));
        assert!(
            problem.detail().contains("window of more than 8 MiB"),
            "{}",
            problem.detail()
        );
    }

    #[test]
    fn empty_members_are_bounded() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let (empty, one) = (compressed(encoding, b""), compressed(encoding, b"one"));
            let most = [empty.repeat(MAX_MEMBERS - 1), one.clone()].concat();
            assert_eq!(encoding.decode(&most, LIMIT).unwrap(), b"one");
            let more = [empty.repeat(MAX_MEMBERS), one].concat();
            let refused = encoding.decode(&more, LIMIT).unwrap_err();
            assert_eq!(refused.summary(), (400, "malformed"));
            assert!(refused.detail().contains("members"), "{encoding:?}");
        }
        // Skippable frames have no content.
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
        let body = [&skippable[..], &compressed(Encoding::Zstd, b"one")].concat();
        assert_eq!(Encoding::Zstd.decode(&body, LIMIT).unwrap(), b"one");
        let refused = Encoding::Zstd.decode(&skippable.repeat(MAX_MEMBERS + 1), LIMIT);
        assert_eq!(refused.unwrap_err().summary(), (400, "malformed"));
    }

    #[test]
    fn damage_is_the_clients_mistake() {
        let plain: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let whole = compressed(encoding, &plain);
            let mut bodies = vec![b"not compressed at all".to_vec(), b"x".to_vec()];
            for cut in [
                1,
                2,
                9,
                20,
                whole.len() / 2,
                whole.len() - 9,
                whole.len() - 1,
            ] {
                bodies.push(whole[..cut].to_vec());
                bodies.push([whole.clone(), whole[..cut].to_vec()].concat());
            }
            bodies.push([&whole[..], b"trailing"].concat());
            for body in bodies {
                let result = encoding.decode(&body, LIMIT);
                let refused = result
                    .map(|out| out.len())
                    .map_err(|problem| problem.summary());
                assert_eq!(
                    refused,
                    Err((400, "malformed")),
                    "{encoding:?} {}",
                    body.len()
                );
            }
        }
    }
}
