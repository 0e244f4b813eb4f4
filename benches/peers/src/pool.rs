//! Many that are waited for together: [`stolon::GreenPool`] and [`tokio::task::JoinSet`].
//!
//! The pool is of the size that pools have by default, so a thousand are there at once, and whoever
//! spawns waits for the rest to have a turn. A set has no bound: its tasks take a few hundred bytes
//! each until they are joined, where a green thread takes a stack.

use std::time::Instant;

use stolon::GreenPool;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::measure::{Batch, time};

/// In a green thread, as the tasks' set is in a task.
pub fn green_pool(count: usize) -> Batch {
    Box::new(move |iterations| {
        let all = stolon::spawn(move || {
            let pool = GreenPool::default();
            time(|| {
                for _ in 0..iterations {
                    for _ in 0..count {
                        drop(pool.spawn(|| ()));
                    }
                    pool.waitall().expect("it is not a member");
                }
            })
        });
        Ok(all.wait())
    })
}

pub fn join_set(runtime: Runtime, count: usize) -> Batch {
    Box::new(move |iterations| {
        let all = async move {
            let mut set = JoinSet::new();
            let start = Instant::now();
            for _ in 0..iterations {
                for _ in 0..count {
                    set.spawn(async {});
                }
                while set.join_next().await.is_some() {}
            }
            start.elapsed()
        };
        runtime.block_on(async { tokio::spawn(all).await }).map_err(|e| e.to_string())
    })
}
