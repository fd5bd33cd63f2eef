//! Who a request comes from, as hops that we trust tell it: `Forwarded` (RFC 7239) and `X-Forwarded-*`.
//!
//! What a hop says is what the hop before it told it, so only the words of trusted hops count: they
//! are read from the right, up to the first address that is not trusted. That is the client, and
//! what stands left of it, the client may have written itself.

use std::net::{IpAddr, SocketAddr};

use super::headers::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::address::{Peer, PeerRange};
use crate::error::{Code, Refusal};
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

/// Where a request comes from, as far as it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client: the right-most that is not trusted, else the left-most. Its port is 0 where a hop
    /// told its address.
    pub client: Peer,
    /// The hops between it and us, its own side first; empty where it connected itself.
    pub hops: Vec<Peer>,
    /// `http` or `https`, as the client reached the first hop.
    pub scheme: Option<&'static str>,
    /// What the client asked for there. It is still to be read as a host.
    pub host: Option<String>,
}

/// What the trusted hop `peer` says of a request.
///
/// # Errors
/// `request-invalid` where it cannot be read, or where the two ways to say it say two things: the
/// backend may read the other one.
pub fn origin(headers: &HeaderMap, peer: Peer, trusted: &[PeerRange]) -> Result<Origin, Refusal> {
    let standard = elements(headers)?;
    let forwarded = (!standard.is_empty()).then(|| of_standard(&standard, peer, trusted)).transpose()?;
    let has_usual =
        [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST].iter().any(|name| headers.contains_key(name));
    let usual = has_usual.then(|| of_usual(headers, peer, trusted)).transpose()?;
    match (forwarded, usual) {
        (Some(one), Some(other)) => agree(one, other),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => Ok(Origin { client: peer, hops: Vec::new(), scheme: None, host: None }),
    }
}

/// Whether a peer is one of those who are trusted.
pub fn is_trusted(peer: &Peer, trusted: &[PeerRange]) -> bool {
    trusted.iter().any(|range| range.contains(peer))
}

fn of_standard(elements: &[Element], peer: Peer, trusted: &[PeerRange]) -> Result<Origin, Refusal> {
    let nodes = elements.iter().rev().map(|element| match &element.node {
        Some(node) => read_node(node),
        // A hop that says nothing of who came to it does not know.
        None => Ok(None),
    });
    let (client, hops) = walk(nodes, peer, trusted)?;
    let first = &elements[elements.len() - hops.len().clamp(1, elements.len())];
    let scheme = first.proto.as_deref().map(read_scheme).transpose()?;
    Ok(Origin { client, hops, scheme, host: first.host.clone() })
}

fn of_usual(headers: &HeaderMap, peer: Peer, trusted: &[PeerRange]) -> Result<Origin, Refusal> {
    let addresses = list(headers, &X_FORWARDED_FOR)?;
    let (client, hops) = walk(addresses.iter().rev().map(|text| read_node(text)), peer, trusted)?;
    let said_first = |name: &HeaderName| -> Result<Option<String>, Refusal> {
        let said = list(headers, name)?;
        let first = said.len().saturating_sub(hops.len().max(1));
        Ok(said.into_iter().nth(first))
    };
    let scheme = said_first(&X_FORWARDED_PROTO)?.as_deref().map(read_scheme).transpose()?;
    let host = said_first(&X_FORWARDED_HOST)?;
    Ok(Origin { client, hops, scheme, host })
}

/// From the nearest address to the first that is not trusted.
fn walk(
    nodes: impl Iterator<Item = Result<Option<IpAddr>, Refusal>>,
    peer: Peer,
    trusted: &[PeerRange],
) -> Result<(Peer, Vec<Peer>), Refusal> {
    let mut hops = Vec::new();
    let mut client = peer;
    for node in nodes {
        let Some(address) = node? else { break };
        hops.push(client);
        client = SocketAddr::new(address, 0).into();
        if !is_trusted(&client, trusted) {
            break;
        }
    }
    hops.reverse();
    Ok((client, hops))
}

fn agree(one: Origin, other: Origin) -> Result<Origin, Refusal> {
    let differ = |one: &Option<String>, other: &Option<String>| matches!((one, other), (Some(one), Some(other)) if !one.eq_ignore_ascii_case(other));
    let schemes = (one.scheme, other.scheme);
    let schemes_differ = matches!(schemes, (Some(one), Some(other)) if one != other);
    if one.client != other.client || schemes_differ || differ(&one.host, &other.host) {
        return Err(invalid("headers `forwarded` and `x-forwarded-*` must say the same"));
    }
    Ok(Origin { scheme: one.scheme.or(other.scheme), host: one.host.or(other.host), ..one })
}

fn read_scheme(text: &str) -> Result<&'static str, Refusal> {
    match text {
        _ if text.eq_ignore_ascii_case("http") => Ok("http"),
        _ if text.eq_ignore_ascii_case("https") => Ok("https"),
        _ => Err(invalid("the forwarded protocol must be `http` or `https`")),
    }
}

/// An address with or without a port, IPv6 with or without brackets (RFC 7239, section 6). `None`
/// where the hop does not know, or does not tell (`unknown`, `_hidden`).
fn read_node(text: &str) -> Result<Option<IpAddr>, Refusal> {
    if text.eq_ignore_ascii_case("unknown") || text.starts_with('_') {
        return Ok(None);
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = bracketed.map_or_else(|| text.parse::<IpAddr>(), |inside| inside.parse().map(IpAddr::V6));
    let address = alone.or_else(|_| text.parse::<SocketAddr>().map(|both| both.ip()));
    address
        .map(|address| Some(address.to_canonical()))
        .map_err(|_| invalid("a forwarded address must be an IP address"))
}

/// The items of a list in a header's lines, in order, without empty ones (RFC 9110, section 5.6.1).
fn list(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<String>, Refusal> {
    let mut items = Vec::new();
    for line in headers.get_all(name) {
        let line = line.to_str().map_err(|_| invalid(format!("header `{name}` must be visible ASCII")))?;
        items.extend(line.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned));
    }
    Ok(items)
}

/// What one hop says (RFC 7239, section 4).
#[derive(Debug, Default, PartialEq, Eq)]
struct Element {
    node: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

fn elements(headers: &HeaderMap) -> Result<Vec<Element>, Refusal> {
    let mut elements = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let read = line.to_str().ok().and_then(read_elements);
        elements.extend(read.ok_or_else(|| invalid("header `forwarded` cannot be read (RFC 7239)"))?);
    }
    Ok(elements)
}

/// The elements of one line; `None` where it is no list of them.
fn read_elements(line: &str) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let mut element = Element::default();
        let mut is_empty = true;
        loop {
            rest = rest.trim_start();
            if !rest.is_empty() && !rest.starts_with([',', ';']) {
                let (name, value, after) = read_pair(rest)?;
                let place = match name.to_ascii_lowercase().as_str() {
                    "for" => Some(&mut element.node),
                    "proto" => Some(&mut element.proto),
                    "host" => Some(&mut element.host),
                    _ => None,
                };
                // Said twice, it could be read either way.
                if let Some(place) = place
                    && place.replace(value).is_some()
                {
                    return None;
                }
                is_empty = false;
                rest = after.trim_start();
            }
            match rest.strip_prefix(';') {
                Some(after) => rest = after,
                None => break,
            }
        }
        if !is_empty {
            elements.push(element);
        }
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(elements)
}

/// `name=value`, where the value may be quoted, and what follows.
fn read_pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.bytes().position(|byte| !is_token(byte)).unwrap_or(rest.len());
        return (end > 0).then(|| (name, rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// A `tchar` (RFC 9110, section 5.6.2); also `:`, `[` and `]`, which many hops forget to quote.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:[]".contains(&byte)
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::RequestInvalid, detail)
}

#[cfg(test)]
mod tests;
