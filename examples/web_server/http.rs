//! The part of HTTP/1.1 (RFC 9112) that a small server needs: where the head of a request ends,
//! what it says, and how a reply looks. Bytes in, bytes out; nothing here reads or writes.

use std::borrow::Cow;
use std::time::SystemTime;

/// The longest request head that is read, in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The longest request body that is accepted, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";
pub(crate) const HTML: &str = "text/html; charset=utf-8";

/// The code and the words of a status line.
pub(crate) type Status = &'static str;

const OK: Status = "200 OK";
const BAD_REQUEST: Status = "400 Bad Request";
pub(crate) const NOT_FOUND: Status = "404 Not Found";
pub(crate) const METHOD_NOT_ALLOWED: Status = "405 Method Not Allowed";
pub(crate) const REQUEST_TIMEOUT: Status = "408 Request Timeout";
const CONTENT_TOO_LARGE: Status = "413 Content Too Large";
const HEAD_TOO_LARGE: Status = "431 Request Header Fields Too Large";
const NOT_IMPLEMENTED: Status = "501 Not Implemented";
const VERSION_NOT_SUPPORTED: Status = "505 HTTP Version Not Supported";

/// Where the head ends that `bytes` begin with: after its first empty line, if that is there yet.
pub(crate) fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let newlines = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
    let end = newlines.map(|(at, _)| at + 1).find_map(|line| match bytes[line..] {
        [b'\n', ..] => Some(line + 1),
        [b'\r', b'\n', ..] => Some(line + 2),
        _ => None,
    });
    if end.unwrap_or(bytes.len()) > MAX_HEAD_BYTES { Err(HEAD_TOO_LARGE) } else { Ok(end) }
}

/// What the head of a request says.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    target: &'a str,
    pub(crate) keep_alive: bool,
    pub(crate) body_bytes: usize,
}

impl<'a> Request<'a> {
    /// Reads a head: the request line, the fields, the empty line.
    pub(crate) fn parse(head: &'a str) -> Result<Request<'a>, Status> {
        let mut lines = head.lines();
        let (method, target, minor) = request_line(lines.next().unwrap_or_default())?;
        let (mut hosts, mut length, mut encoded) = (0, None, false);
        let (mut close, mut stay, mut expects) = (false, false, false);
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = field(line).ok_or(BAD_REQUEST)?;
            match name.to_ascii_lowercase().as_str() {
                "host" => hosts += 1,
                "content-length" if length.is_some() => return Err(BAD_REQUEST),
                "content-length" => length = Some(decimal(value).ok_or(BAD_REQUEST)?),
                "transfer-encoding" => encoded = true,
                "connection" => {
                    let mut options = value.split(',').map(str::trim);
                    close |= options.clone().any(|option| option.eq_ignore_ascii_case("close"));
                    stay |= options.any(|option| option.eq_ignore_ascii_case("keep-alive"));
                }
                "expect" => expects = true,
                _ => {}
            }
        }
        let body_bytes = length.unwrap_or(0);
        match (hosts, encoded, length) {
            (2.., _, _) | (_, true, Some(_)) => return Err(BAD_REQUEST),
            (0, _, _) if minor > 0 => return Err(BAD_REQUEST),
            (_, true, None) => return Err(NOT_IMPLEMENTED),
            _ if body_bytes > MAX_BODY_BYTES => return Err(CONTENT_TOO_LARGE),
            _ => {}
        }
        if expects && body_bytes > 0 {
            // The client holds its body back until it is asked for, and nobody here wants it.
            return Ok(Request { method, target, keep_alive: false, body_bytes: 0 });
        }
        Ok(Request { method, target, keep_alive: !close && (minor > 0 || stay), body_bytes })
    }

    /// The path that is asked for, without a host before it or a query behind it.
    pub(crate) fn path(&self) -> &'a str {
        let path = self.target.split('?').next().unwrap_or_default();
        match path.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find('/').map_or("/", |at| &rest[at..])
            }
            _ => path,
        }
    }
}

/// Splits a request line into the method, the target, and the minor version of HTTP/1.
fn request_line(line: &str) -> Result<(&str, &str, u8), Status> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD_REQUEST);
    };
    let known_form = target.starts_with('/') || target.contains("://") || target == "*";
    if !is_token(method)
        || !target.bytes().all(|byte| byte.is_ascii_graphic())
        || !(known_form || method == "CONNECT")
    {
        return Err(BAD_REQUEST);
    }
    match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some(&[b'1', b'.', minor @ b'0'..=b'9']) => Ok((method, target, minor - b'0')),
        Some(&[b'0'..=b'9', b'.', b'0'..=b'9']) => Err(VERSION_NOT_SUPPORTED),
        _ => Err(BAD_REQUEST),
    }
}

/// Splits a header line into the field's name and value.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let printable = value.chars().all(|c| c == '\t' || !c.is_ascii_control());
    (is_token(name) && printable).then_some((name, value.trim_matches([' ', '\t'])))
}

fn is_token(word: &str) -> bool {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !word.is_empty() && word.bytes().all(in_token)
}

/// A number in digits only; one that is too large for a `usize` is the largest.
fn decimal(digits: &str) -> Option<usize> {
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| digits.parse().unwrap_or(usize::MAX))
}

/// The answer to one request.
pub(crate) struct Reply {
    status: Status,
    media_type: &'static str,
    body: Cow<'static, str>,
    pub(crate) head_only: bool,
    pub(crate) keep_alive: bool,
}

impl Reply {
    pub(crate) fn new(media_type: &'static str, body: impl Into<Cow<'static, str>>) -> Reply {
        Reply { status: OK, media_type, body: body.into(), head_only: false, keep_alive: true }
    }

    /// An answer that says no, after which the connection ends.
    pub(crate) fn error(status: Status) -> Reply {
        let body = format!("{status}\n").into();
        Reply { status, media_type: PLAIN, body, head_only: false, keep_alive: false }
    }

    pub(crate) fn to_bytes(&self, keep_alive: bool) -> Vec<u8> {
        let Reply { status, media_type, body, .. } = self;
        let date = http_date(SystemTime::now());
        let bytes = body.len();
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let allow = if *status == METHOD_NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
        let body = if self.head_only { "" } else { body };
        format!(
            "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: {media_type}\r\n\
             Content-Length: {bytes}\r\n{allow}Connection: {connection}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// A time as a `Date` field has it: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(time: SystemTime) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (mut year, mut day) = (1970, seconds / 86_400);
    let weekday = WEEKDAYS[(day % 7) as usize];
    let leap = |year: u64| u64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    while day >= 365 + leap(year) {
        day -= 365 + leap(year);
        year += 1;
    }
    let lengths = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (day, month) = (day + 1, MONTHS[month]);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}
