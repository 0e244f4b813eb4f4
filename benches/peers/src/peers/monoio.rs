//! monoio, by its epoll driver; it serves echoes only.

use std::io;
use std::net::TcpListener;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener as Listener, TcpStream};
use monoio::{LegacyDriver, RuntimeBuilder};

/// Echoes for ever.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = Listener::from_std(listener)?;
        loop {
            let (connection, _) = listener.accept().await?;
            connection.set_nodelay(true)?;
            monoio::spawn(echo(connection));
        }
    })
}

async fn echo(mut connection: TcpStream) {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let (read, filled) = connection.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let (written, sent) = connection.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buffer = sent;
        buffer.clear();
    }
}
