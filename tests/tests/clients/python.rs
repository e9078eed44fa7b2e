//! Python's gRPC (which is the one in C) and `websockets`, at a service that they wake.

use pilotlight_tests::run::Pilotlight;

use crate::tool::Tool;

#[tokio::test]
async fn a_grpc_client_calls_and_talks() {
    let Some(python) = Tool::python_with("grpc") else { return };
    let pilotlight = Pilotlight::run(["--sample", "--name", "app"]).await;
    let script = r#"
import sys, grpc
# The library takes a proxy from the environment even for loopback addresses.
options = [("grpc.enable_http_proxy", 0)]
with grpc.insecure_channel(sys.argv[1], options=options) as channel:
    unary = channel.unary_unary("/pilotlight.Sample/Say")
    for text in [b"", b"one", b"x" * 1_000_000]:
        answer, call = unary.with_call(text, timeout=30)
        assert answer == text, len(answer)
        assert call.code() == grpc.StatusCode.OK, call.code()
        assert dict(call.initial_metadata())["x-pod"].startswith("app-"), call.initial_metadata()
    talk = channel.stream_stream("/pilotlight.Sample/Talk")
    words = [b"word %d" % number for number in range(1000)]
    assert list(talk(iter(words), timeout=30)) == words
    # One after the other, each sent only when the one before has come back.
    class Turns:
        def __init__(self):
            self.heard = __import__("queue").Queue()
        def __iter__(self):
            for number in range(20):
                yield b"turn %d" % number
                self.heard.get(timeout=30)
    turns = Turns()
    count = 0
    for answer in talk(iter(turns), timeout=30):
        assert answer == b"turn %d" % count, answer
        count += 1
        turns.heard.put(answer)
    assert count == 20, count
    # A call that the client gives up leaves the others alone.
    first = talk(iter(turns), timeout=30)
    next(first)
    first.cancel()
    assert unary(b"after", timeout=30) == b"after"
print("done")
"#;
    assert_eq!(python.run(&[script, &pilotlight.address.to_string()]).await, "done\n");
}

#[tokio::test]
async fn a_websocket_client_talks_and_ends_properly() {
    let Some(python) = Tool::python_with("websockets") else { return };
    let pilotlight = Pilotlight::run(["--sample", "--name", "app"]).await;
    let script = r#"
import asyncio, sys, websockets
async def main():
    async with websockets.connect("ws://" + sys.argv[1] + "/", open_timeout=30) as socket:
        for message in ["one", "", b"\x00\xff", "\u00e4" * 10_000, b"x" * 1_000_000]:
            await socket.send(message)
            assert await socket.recv() == message
        # In three frames.
        await socket.send(["a", "b", "c"])
        assert await socket.recv() == "abc"
        await asyncio.wait_for(await socket.ping(), 30)
        await socket.close(1000, "enough")
        assert (socket.close_code, socket.close_reason) == (1000, "enough"), socket.close_code
asyncio.run(main())
print("done")
"#;
    assert_eq!(python.run(&[script, &pilotlight.address.to_string()]).await, "done\n");
}
