//! tokio, on its current-thread runtime.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};

use super::Made;
use crate::bodies::Frame;
use crate::crowd::Crowd;
use crate::figure::{Figure, Ours};
use crate::measure::{Batch, Contender};
use crate::pool;
use crate::vocabulary;

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().build().map_err(|e| e.to_string())
}

pub fn contender(figure: Figure) -> Made {
    let runtime = runtime()?;
    let per_iteration = figure.per_iteration(Ours::GreenThread);
    let batch: Batch = match figure {
        Figure::Ring { shuffled: true, .. } => {
            return Err(String::from("its scheduler runs tasks in the order they are made in"));
        }
        Figure::Ring { count, .. } => turns::<true>(runtime, count),
        Figure::Yield(count) => turns::<false>(runtime, count),
        Figure::SpawnJoin(count) => {
            Box::new(move |iterations| spawn_join(&runtime, iterations, count))
        }
        Figure::Pool(count) => pool::join_set(runtime, count),
        _ => match vocabulary::tokios(figure, runtime) {
            Ok(batch) => batch,
            Err(_) => return Err(String::from("has no direct switch: see yield")),
        },
    };
    Ok(Contender::new(per_iteration, batch))
}

/// In a task, which is faster than from `block_on`.
fn spawn_join(runtime: &Runtime, iterations: u64, count: usize) -> Result<Duration, String> {
    let all = async move {
        let mut tasks: Vec<JoinHandle<()>> = Vec::with_capacity(count);
        let start = Instant::now();
        for _ in 0..iterations {
            tasks.extend((0..count).map(|_| tokio::spawn(async {})));
            for task in tasks.drain(..) {
                let _ = task.await;
            }
        }
        start.elapsed()
    };
    runtime.block_on(async { tokio::spawn(all).await }).map_err(|e| e.to_string())
}

fn turns<const FRAME: bool>(runtime: Runtime, count: usize) -> Batch {
    let crowd = Crowd::new(count);
    let member = |crowd: Arc<Crowd>| async move {
        let mut frame = Frame::new();
        while crowd.goes_on::<FRAME>(&mut frame) {
            yield_now().await;
        }
    };
    // From inside: tasks from outside stand in another queue, which gets one turn in 31.
    runtime.block_on(async {
        for _ in 1..count {
            tokio::spawn(member(Arc::clone(&crowd)));
        }
    });
    Box::new(move |rounds| {
        let crowd = Arc::clone(&crowd);
        let leader = async move {
            yield_now().await;
            let lap = crowd.begin();
            for _ in 0..rounds {
                yield_now().await;
            }
            crowd.end(&lap, rounds)
        };
        runtime.block_on(async { tokio::spawn(leader).await }).map_err(|e| e.to_string())?
    })
}

/// Echoes for ever.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = net::TcpListener::from_std(listener)?;
        loop {
            let (connection, _) = listener.accept().await?;
            connection.set_nodelay(true)?;
            tokio::spawn(echo(connection));
        }
    })
}

async fn echo(mut connection: net::TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(bytes @ 1..) = connection.read(&mut buffer).await {
        if connection.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}

/// Tasks that wait for nothing, without a timer.
pub fn park(count: usize) -> Result<(), String> {
    let runtime = runtime()?;
    for _ in 0..count {
        runtime.spawn(std::future::pending::<()>());
    }
    runtime.block_on(async { tokio::spawn(yield_now()).await }).map_err(|e| e.to_string())?;
    std::mem::forget(runtime);
    Ok(())
}
