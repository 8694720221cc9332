//! Port-forward.

use bytes::Bytes;
use cri::*;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use spdy::{Connection, Headers, Role, StreamError};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::client::{Node, Pod, signalled, with_pipe};

/// What a client that knows nothing but HTTP/1.0 asks.
const QUESTION: &str = "GET /words HTTP/1.0\r\n\r\n";

/// A pod with a server that only listens where nobody outside can reach it.
async fn serving(node: &Node, name: &str) -> Pod {
    let pod = node.pod().await;
    let script = "echo hello > /v/words; busybox httpd -p 127.0.0.1:8080 -h /v && echo > /v/pipe; sleep 1000";
    let mut config = pod.script("main", script);
    let pipe = with_pipe(node, name, &mut config);
    pod.start(config).await;
    signalled(pipe).await;
    pod
}

async fn url(pod: &Pod, port: Vec<i32>) -> String {
    let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port };
    pod.runtime.clone().port_forward(request).await.unwrap().into_inner().url
}

pub(crate) async fn ports_are_forwarded_over_spdy(node: Node) {
    let pod = serving(&node, "forward-spdy").await;
    let url: http::Uri = url(&pod, Vec::new()).await.parse().unwrap();
    let stream = TcpStream::connect(url.authority().unwrap().as_str()).await.unwrap();
    let (mut sender, http) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::post(url.path())
        .header("host", "runtime")
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "portforward.k8s.io")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let connection = Connection::new(Role::Client);
    let talking = async {
        let mut response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["x-stream-protocol-version"], "portforward.k8s.io");
        let io = hyper::upgrade::on(&mut response).await.unwrap();
        let asking = async {
            let ask = async |port: u16, request: u32| {
                let headers =
                    Headers::new().with("port", port.to_string()).with("requestID", request.to_string());
                let error = connection.open(headers.clone().with("streamType", "error")).unwrap();
                error.finish();
                let data = connection.open(headers.with("streamType", "data")).unwrap();
                data.replied().await.unwrap();
                data.write(Bytes::from(QUESTION)).await.unwrap();
                data.finish();
                let answer = data.read_all(10_000).await.unwrap();
                let wrong = error.read_all(10_000).await.unwrap();
                (String::from_utf8(answer).unwrap(), String::from_utf8(wrong).unwrap())
            };
            for request in 0..3 {
                let (answer, wrong) = ask(8080, request).await;
                assert!(answer.contains("200 OK") && answer.ends_with("hello\n"), "{answer}");
                assert_eq!(wrong, "");
            }
            let (answer, wrong) = ask(81, 3).await;
            assert_eq!(answer, "");
            let id = &pod.id;
            assert!(wrong.starts_with(&format!("error forwarding port 81 to pod {id}, uid : ")), "{wrong}");
            let words = format!(
                "failed to connect to localhost:81 inside namespace {id:?}, IPv4: dial tcp4 127.0.0.1:81: connect: \
                 connection refused IPv6 dial tcp6 [::1]:81: connect: "
            );
            assert!(wrong.contains(&words), "{wrong}");
            // A stream that says no port is none.
            let odd = connection.open(Headers::new().with("streamType", "data")).unwrap();
            assert!(matches!(odd.replied().await, Err(StreamError::Reset(_))));
        };
        tokio::select! {
            ended = connection.run(TokioIo::new(io)) => panic!("{ended:?}"),
            () = asking => {}
        }
    };
    tokio::select! {
        _ = async { http.with_upgrades().await.unwrap(); std::future::pending::<()>().await } => {}
        () = talking => {}
    }
    pod.remove().await;
}

pub(crate) async fn ports_are_forwarded_over_a_web_socket(node: Node) {
    let pod = serving(&node, "forward-socket").await;
    let url = url(&pod, vec![81, 8080]).await;
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    let offer = "v5.channel.k8s.io, v4.channel.k8s.io";
    request.headers_mut().insert("Sec-WebSocket-Protocol", offer.parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "v4.channel.k8s.io");
    socket.send(Message::binary([&[2][..], QUESTION.as_bytes()].concat())).await.unwrap();
    let mut channels = vec![Vec::new(); 4];
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(data) => channels[usize::from(data[0])].extend_from_slice(&data[1..]),
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                break;
            }
            _ => {}
        }
    }
    assert_eq!((&channels[0][..], &channels[3][..]), (&81u16.to_le_bytes()[..], &8080u16.to_le_bytes()[..]));
    let answer = String::from_utf8(channels[2].split_off(2)).unwrap();
    assert!(answer.contains("200 OK") && answer.ends_with("hello\n"), "{answer}");
    let wrong = String::from_utf8(channels[1].split_off(2)).unwrap();
    assert!(wrong.contains("connection refused"), "{wrong}");
    pod.remove().await;
}
