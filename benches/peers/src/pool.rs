//! Many at once, in a pool: [`stolon::GreenPool`] and [`tokio::task::JoinSet`], with room for all.

use std::time::Instant;

use stolon::GreenPool;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::measure::{Batch, time};

/// In a green thread, as the tasks' set is in a task.
pub fn green_pool(count: usize) -> Batch {
    Box::new(move |iterations| {
        let all = stolon::spawn(move || {
            let pool = GreenPool::new(count);
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
