//! Resource limits of the process.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;

use super::memory;

/// Raises the soft limit on open descriptors to the hard one, and returns it.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = resource_limit(libc::RLIMIT_NOFILE)?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads one `rlimit`.
        syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}

fn resource_limit(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the kernel writes one `rlimit`.
    syscall!(getrlimit(resource, limit.as_mut_ptr()))?;
    // SAFETY: the call succeeded.
    Ok(unsafe { limit.assume_init() })
}

/// A limit that keeps this process from having more memory. To be asked for when that has failed:
/// it takes a while to find out. Nothing is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    /// `RLIMIT_AS` or `RLIMIT_DATA`, by its name, in bytes.
    Resource(&'static str, u64),
    /// `vm.max_map_count`, which is so much.
    Mappings(u64),
    /// `vm.overcommit_memory` is 2: whatever is mapped counts, used or not.
    Commitment,
}

impl MemoryLimit {
    /// The one that keeps `bytes` more from being mapped, as far as can be told.
    pub(crate) fn on_bytes(bytes: usize) -> Option<Self> {
        /// Of aarch64; x86_64 has fewer. More are beyond any limit.
        const ADDRESSES: u64 = 1 << 48;
        let bytes = bytes as u64;
        if bytes >= ADDRESSES {
            return None;
        }
        Self::on_mappings().or_else(|| Self::on_pages(bytes)).or_else(|| {
            let mode = numbers("/proc/sys/vm/overcommit_memory")?;
            (mode == [2]).then_some(Self::Commitment)
        })
    }

    /// The one that keeps mappings from being split, if it is reached.
    pub(crate) fn on_mappings() -> Option<Self> {
        // A split makes two more, and the kernel lists one that does not count.
        const MARGIN: u64 = 3;
        let [limit] = numbers("/proc/sys/vm/max_map_count")?;
        let count = count_mappings().ok()?;
        (count + MARGIN > limit).then_some(Self::Mappings(limit))
    }

    fn on_pages(bytes: u64) -> Option<Self> {
        let [all, _, _, _, _, data] = numbers("/proc/self/statm")?;
        let limits =
            [("RLIMIT_AS", libc::RLIMIT_AS, all), ("RLIMIT_DATA", libc::RLIMIT_DATA, data)];
        limits.into_iter().find_map(|(name, resource, pages)| {
            let limit = resource_limit(resource).ok()?.rlim_cur;
            let wanted = pages * memory::page_bytes() as u64 + bytes;
            (wanted > limit).then_some(Self::Resource(name, limit))
        })
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(name, bytes) => write!(f, "{name} is {} KiB", bytes / 1024),
            Self::Mappings(count) => write!(f, "vm.max_map_count is {count}"),
            Self::Commitment => {
                write!(f, "vm.overcommit_memory is 2, and no more can be committed")
            }
        }
    }
}

/// The first numbers in a short file of the kernel's.
fn numbers<const COUNT: usize>(path: &str) -> Option<[u64; COUNT]> {
    let mut bytes = [0; 256];
    let filled = File::open(path).and_then(|mut file| file.read(&mut bytes)).ok()?;
    let mut words = std::str::from_utf8(&bytes[..filled]).ok()?.split_ascii_whitespace();
    let mut numbers = [0; COUNT];
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    Some(numbers)
}

fn count_mappings() -> io::Result<u64> {
    let mut maps = File::open("/proc/self/maps")?;
    let mut bytes = [0; 1024];
    let mut count = 0;
    loop {
        let filled = maps.read(&mut bytes)?;
        if filled == 0 {
            return Ok(count);
        }
        count += bytes[..filled].iter().filter(|&&byte| byte == b'\n').count() as u64;
    }
}
