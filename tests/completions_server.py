"""An OpenAI-compatible completions server for the tests: a real model, in a process of its own.

python -m tests.completions_server MODEL_DIRECTORY PORT_FILE FAULTS_FILE

It echoes with log-probabilities, streams, and counts. FAULTS_FILE holds the names of faults that the next requests
meet, one a line, each once; `always:NAME` stays. The requests that came are counted at /count.
"""

import contextlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER, PORT, FAULTS = (Path(each) for each in sys.argv[1:4])
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)
MODEL = AutoModelForCausalLM.from_pretrained(FOLDER).eval()
LOCK, COUNTING, COUNT = threading.Lock(), threading.Lock(), {"asked": 0, "at_once": 0, "most": 0}


def fault() -> str:
    with LOCK:
        lines = FAULTS.read_text().split() if FAULTS.is_file() else []
        if lines and not lines[0].startswith("always:"):
            FAULTS.write_text("\n".join(lines[1:]))
        return lines[0].removeprefix("always:") if lines else ""


def follow(ids: list[int], most: int) -> list[int]:
    with LOCK, torch.inference_mode():
        rows = torch.tensor([ids])
        out = MODEL.generate(rows, attention_mask=torch.ones_like(rows), max_new_tokens=most, do_sample=False)
    return out[0, len(ids) :].tolist()


def logprobs(ids: list[int]) -> dict[str, Any]:
    with LOCK, torch.inference_mode():
        said = torch.log_softmax(MODEL(torch.tensor([ids])).logits[0].float(), -1)
    each = [None, *(float(said[n, token]) for n, token in enumerate(ids[1:]))]
    best = [None, *({TOKENIZER.decode([int(row.argmax())]): float(row.max())} for row in said[:-1])]
    return {"tokens": [TOKENIZER.decode([token]) for token in ids], "token_logprobs": each, "top_logprobs": best}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/count":
            self.answer(200, dict(COUNT))
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "pico", "created": int(time.time()), "max_model_len": 256}]})
        else:
            self.answer(404, {"error": "no such thing"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK:
            COUNT["asked"] += 1
        with contextlib.suppress(BrokenPipeError):
            self.complete(body, fault())

    def complete(self, body: dict[str, Any], wrong: str) -> None:
        key = self.headers.get("Authorization", "")
        if wrong in ("429", "500", "503", "400", "401"):
            wait = {"Retry-After": "1"} if wrong == "429" else {}
            self.answer(int(wrong), {"error": {"message": f"not now, {key}"}}, wait)
        elif wrong == "redirect":
            self.answer(307, {}, {"Location": "http://127.0.0.1:1/v1/completions"})
        elif wrong == "garbled":
            self.reply(200, f'{{"choices": [{key}'.encode(), {})
        elif wrong == "short":
            self.reply(200, b'{"choices": [', {"Content-Length": "5000"})
            self.close_connection = True
        elif wrong == "slow":
            time.sleep(3)
            self.answer(200, {})
        elif wrong == "no-logprobs" and body.get("logprobs"):
            self.answer(400, {"error": f"logprobs are not supported, {key}"})
        elif wrong == "other" and not body.get("logprobs"):
            self.answer(200, {"choices": [{"text": "I am another model."}]})
        else:
            self.honest(body, wrong)

    def honest(self, body: dict[str, Any], wrong: str) -> None:
        prompt = body["prompt"]
        ids = prompt if isinstance(prompt, list) else list(TOKENIZER(prompt).input_ids)
        with COUNTING:
            COUNT["at_once"] += 1
            COUNT["most"] = max(COUNT["most"], COUNT["at_once"])
        new = follow(ids, body["max_tokens"])
        with COUNTING:
            COUNT["at_once"] -= 1
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(new)}
        if body.get("stream"):
            self.stream(new, usage, wrong)
            return
        text = TOKENIZER.decode(new, skip_special_tokens=True)
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": "length"}
        if body.get("echo"):
            choice["text"] = TOKENIZER.decode(ids) + text
            choice["logprobs"] = logprobs([*ids, *new])
        self.answer(200, {"model": body["model"], "choices": [choice], "usage": usage})

    def stream(self, new: list[int], usage: dict[str, Any], wrong: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        at_once = 2 if wrong == "pairs" else 1
        for start in range(0, len(new), at_once):
            if wrong == "cut" and start > 2:
                return
            self.event({"choices": [{"text": TOKENIZER.decode(new[start : start + at_once])}]})
            time.sleep(0.005)
        self.event({"choices": [{"text": "", "finish_reason": "length"}]})
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, content: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(content)}\n\n".encode())
        self.wfile.flush()

    def answer(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.reply(status, json.dumps(content).encode(), headers or {})

    def reply(self, status: int, text: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    draft = PORT.with_suffix(".draft")
    draft.write_text(str(server.server_port))
    draft.rename(PORT)
    server.serve_forever()
