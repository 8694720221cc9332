//! Exec and attach.

use cri::*;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::client::{Node, signalled, with_pipe};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn exec_sync_returns_output_and_code(node: Node) {
    let pod = node.pod().await;
    let id = pod.start(pod.script("main", "sleep 1000")).await;
    let answer = pod.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 3"], 10).await.unwrap();
    assert_eq!(
        (answer.stdout.as_slice(), answer.stderr.as_slice(), answer.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 3)
    );
    let big = pod.exec(&id, &["head", "-c", "20000000", "/dev/zero"], 20).await.unwrap();
    assert_eq!(big.stdout.len(), (16 << 20) - (64 << 10));
    let error = pod.exec(&id, &["sleep", "100"], 1).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
    let left = pod.exec(&id, &["sh", "-c", "ps | grep -c 'sleep 10[0]$'"], 10).await.unwrap();
    assert_eq!(left.stdout, b"0\n");
    let error = pod.exec(&id, &["nonsense"], 10).await.unwrap_err();
    assert!(error.message().contains("executable file not found in $PATH"), "{error}");
    pod.stop(&id, 0).await;
    let error = pod.exec(&id, &["true"], 10).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    pod.remove().await;
}

pub(crate) async fn exec_streams_over_web_socket(node: Node) {
    let pod = node.pod().await;
    let id = pod.start(pod.script("main", "sleep 1000")).await;
    let request = ExecRequest {
        container_id: id,
        cmd: ["sh", "-c", "cat; echo err >&2; exit 9"].map(str::to_owned).to_vec(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = pod.runtime.clone().exec(request).await.unwrap().into_inner().url;
    let mut socket = open(&url, "v5.channel.k8s.io, v4.channel.k8s.io").await.unwrap();
    socket.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let streams = collect(&mut socket).await;
    assert_eq!((streams[1].as_str(), streams[2].as_str()), ("hello", "err\n"));
    assert!(
        streams[3].contains(r#""reason":"NonZeroExitCode""#) && streams[3].contains(r#""message":"9""#),
        "{}",
        streams[3]
    );
    // A token is good once.
    assert!(open(&url, "v5.channel.k8s.io").await.is_none());
    pod.remove().await;
}

pub(crate) async fn exec_has_a_terminal(node: Node) {
    let pod = node.pod().await;
    let id = pod.start(pod.script("main", "sleep 1000")).await;
    let request = ExecRequest {
        container_id: id,
        cmd: ["sh", "-c", "read line; stty size; test -t 0 && echo terminal"].map(str::to_owned).to_vec(),
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
    };
    let url = pod.runtime.clone().exec(request).await.unwrap().into_inner().url;
    let mut socket = open(&url, "v4.channel.k8s.io").await.unwrap();
    socket.send(Message::binary(b"\x04{\"Width\":100,\"Height\":50}".to_vec())).await.unwrap();
    socket.send(Message::binary(b"\0go\n".to_vec())).await.unwrap();
    let streams = collect(&mut socket).await;
    assert!(streams[1].ends_with("50 100\r\nterminal\r\n"), "{:?}", streams);
    assert!(streams[3].contains("Success"), "{}", streams[3]);
    pod.remove().await;
}

pub(crate) async fn attach_carries_input_and_output(node: Node) {
    let pod = node.pod().await;
    let mut config = pod.script("main", "echo > /v/pipe; cat; echo end; echo error >&2");
    (config.stdin, config.stdin_once) = (true, true);
    let pipe = with_pipe(&node, "attach", &mut config);
    let id = pod.start(config).await;
    let request =
        AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let url = pod.runtime.clone().attach(request).await.unwrap().into_inner().url;
    let mut socket = open(&url, "v5.channel.k8s.io").await.unwrap();
    signalled(pipe).await;
    socket.send(Message::binary(b"\0typed\n".to_vec())).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let streams = collect(&mut socket).await;
    assert_eq!((streams[1].as_str(), streams[2].as_str()), ("typed\nend\n", "error\n"));
    assert_eq!(pod.ended(&id).await.exit_code, 0);
    assert!(pod.log("main").contains("typed\n"));
    pod.remove().await;
}

/// Upgrades; `None` when the server refuses.
async fn open(url: &str, protocols: &str) -> Option<Socket> {
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
    let (socket, response) = tokio_tungstenite::connect_async(request).await.ok()?;
    let chosen = response.headers()["Sec-WebSocket-Protocol"].to_str().unwrap().to_owned();
    assert!(protocols.starts_with(&chosen));
    Some(socket)
}

/// What came on each channel until the server closed as it should.
async fn collect(socket: &mut Socket) -> Vec<String> {
    let mut streams = vec![Vec::new(); 5];
    loop {
        match socket.next().await.expect("no closing handshake").unwrap() {
            Message::Binary(bytes) => streams[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                return streams.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
            }
            _ => {}
        }
    }
}
