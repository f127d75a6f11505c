//! The server is killed under load and started again: the lock is free, clients come back, nothing wedges.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::support::server::Options;
use super::support::{Client, Connect, Publish, Server, with_one_and_three_reactors};

with_one_and_three_reactors!(killed_under_load_and_started_again);

fn killed_under_load_and_started_again(reactors: usize) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("crash-{}-{reactors}", std::process::id()));
    let options = Options {
        reactors,
        mqtt: Vec::new(),
        max_connections: None,
        data_dir: Some(dir.clone()),
        queue_full: None,
        config: String::new(),
    };
    for round in 0..4 {
        let mut server = Server::launch(&options);
        let addr = server.addr;
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                std::thread::spawn(move || {
                    // Clients come and go and publish until the server is gone under them.
                    let mut serial = 0u32;
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(stream) = std::net::TcpStream::connect(addr) else {
                            continue;
                        };
                        let mut client = Client::over(stream, 5);
                        client.send(
                            &Connect {
                                clean: false,
                                ..Connect::new(5, &format!("load-{n}-{}", serial % 20))
                            }
                            .encode(),
                        );
                        client.send(&super::support::packet::subscribe(
                            5,
                            1,
                            &[("load/#", 1)],
                            &[],
                        ));
                        for id in 2..40 {
                            client.send(
                                &Publish {
                                    topic: "load/x",
                                    payload: &[0; 500],
                                    qos: 1,
                                    id,
                                    retain: true,
                                    ..Publish::default()
                                }
                                .encode(5),
                            );
                        }
                        client.event(Duration::from_millis(5));
                        done.fetch_add(1, Ordering::Relaxed);
                        serial += 1;
                    }
                })
            })
            .collect();
        super::support::eventually("two hundred clients came and went", || {
            done.load(Ordering::Relaxed) > 200
        });
        server.kill();
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("a client thread"));
        println!(
            "round {round}: killed after {} clients",
            done.load(Ordering::Relaxed)
        );
    }
    let server = Server::launch(&options);
    let mut subscriber = server.client(5, "after");
    subscriber.subscribe("after", 2);
    let mut publisher = server.client(4, "publisher");
    for n in 0..100 {
        publisher.publish("after", n.to_string().as_bytes(), 1 + n % 2);
        assert_eq!(subscriber.take().text(), n.to_string());
    }
    drop(server);
    std::fs::remove_dir_all(dir).ok();
}
