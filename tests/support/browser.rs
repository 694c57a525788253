//! A real browser without a window, in a host's network namespace, led by the Chrome DevTools protocol over a pipe: there
//! it reaches nothing but that host, and no port of this machine is open for whoever finds it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::spawn;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Host, SOON, tool, wait_until};

/// Takes the pipe from where the program has its input and output to where Chromium looks for it.
const START: &str = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >"$HOME/log" 2>&1"#;

/// A browser with one page. Dropping it ends it, and removes all that it kept.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    told: Receiver<Value>,
    /// What was told meanwhile, other than answers.
    events: Vec<Value>,
    next: u64,
    session: Option<String>,
    home: tempfile::TempDir,
}

impl Browser {
    /// Starts one on a host.
    #[track_caller]
    pub(crate) fn new(host: &Host) -> Self {
        Self::started(host.command("bash"))
    }

    /// Starts one on this machine itself.
    #[track_caller]
    pub(crate) fn outside() -> Self {
        Self::started(Command::new(tool("bash")))
    }

    #[track_caller]
    fn started(mut command: Command) -> Self {
        let home = tempfile::Builder::new()
            .prefix(&format!("nt-{}-browser-", std::process::id()))
            .tempdir()
            .expect("make a directory for the browser");
        let profile = format!("--user-data-dir={}", home.path().join("profile").display());
        command.env("HOME", home.path()).env_remove("DISPLAY");
        command.args(["-c", START, "chromium", &profile]).args([
            "--remote-debugging-pipe",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--no-first-run",
            "--window-size=1360,860",
            "about:blank",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start chromium");
        let input = child.stdin.take().expect("a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, told) = channel();
        spawn(move || {
            let mut message = Vec::new();
            while let Ok(1..) = output.read_until(0, &mut message) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else {
                    return;
                };
                if tell.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            input,
            told,
            events: Vec::new(),
            next: 0,
            session: None,
            home,
        };
        browser.attach();
        browser
    }

    /// Finds the page it began with.
    fn attach(&mut self) {
        let mut page = None;
        wait_until("the browser has a page", || {
            let targets = self.call("Target.getTargets", json!({}));
            let targets = targets["targetInfos"].as_array().cloned();
            let mut targets = targets.unwrap_or_default().into_iter();
            page = targets.find(|target| target["type"] == "page");
            page.is_some()
        });
        let page = page.expect("found above");
        let asked = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", asked);
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method, and waits for what it returns.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let answered = self.attempt(method, params);
        answered.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same; what the browser objects is the caller's to judge.
    #[track_caller]
    fn attempt(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let sent = self.input.write_all(&bytes);
        sent.unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.log()));
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(mut told) if told["id"] == id => {
                    return match told["error"].take() {
                        Value::Null => Ok(told["result"].take()),
                        error => Err(error),
                    };
                }
                Ok(told) => self.events.push(told),
                Err(error) => panic!("{method}: {error}\n{}", self.log()),
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Goes to an address.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        // One that differs behind # alone would not be loaded anew.
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        let gone = self.call("Page.navigate", json!({ "url": url }));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
    }

    /// What an expression of JavaScript is in the page, once it is there if it is promised.
    #[track_caller]
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let told = self.call("Runtime.evaluate", asked);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    /// Waits until an expression is true, whatever goes wrong with it before: a page may not be there yet.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let asked =
                json!({ "expression": format!("Boolean({expression})"), "returnByValue": true });
            // It is an error while one page takes the place of another.
            let told = self
                .attempt("Runtime.evaluate", asked)
                .unwrap_or_else(|error| error);
            if told["result"]["value"] == true {
                return;
            }
            if Instant::now() > deadline {
                let text = self.eval("document.body.innerText");
                panic!(
                    "{expression}: not so after {SOON:?}: {told}\n{text}\n{:#?}",
                    self.complaints()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key, by its name in JavaScript, such as `Enter` or `a`.
    #[track_caller]
    pub(crate) fn press(&mut self, key: &str) {
        let (code, number) = match key {
            "Enter" => ("Enter", 13),
            "Tab" => ("Tab", 9),
            "Escape" => ("Escape", 27),
            "ArrowLeft" => ("ArrowLeft", 37),
            "ArrowRight" => ("ArrowRight", 39),
            "/" => ("Slash", 191),
            _ => ("", 0),
        };
        let mut down = json!({
            "type": "keyDown", "key": key, "code": code, "windowsVirtualKeyCode": number,
        });
        if key == "Enter" {
            down["text"] = "\r".into();
        } else if key.chars().count() == 1 {
            down["text"] = key.into();
        }
        self.call("Input.dispatchKeyEvent", down);
        let up =
            json!({ "type": "keyUp", "key": key, "code": code, "windowsVirtualKeyCode": number });
        self.call("Input.dispatchKeyEvent", up);
    }

    /// Types a text where the focus is.
    #[track_caller]
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Has the system prefer `dark` or `light`.
    #[track_caller]
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// What it has asked for so far: the addresses.
    #[track_caller]
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.hear();
        let of = |event: &Value| {
            let url = match event["method"].as_str()? {
                "Network.requestWillBeSent" => &event["params"]["request"]["url"],
                "Network.webSocketCreated" => &event["params"]["url"],
                _ => return None,
            };
            url.as_str().map(str::to_owned)
        };
        self.events.iter().filter_map(of).collect()
    }

    /// What went wrong in the page: exceptions, and what the browser itself says of it.
    #[track_caller]
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.hear();
        let of = |event: &Value| match event["method"].as_str()? {
            "Runtime.exceptionThrown" => {
                Some(event["params"]["exceptionDetails"]["exception"]["description"].to_string())
            }
            "Log.entryAdded" if event["params"]["entry"]["level"] == "error" => Some(format!(
                "{} {}",
                event["params"]["entry"]["text"], event["params"]["entry"]["url"]
            )),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }

    /// Takes in what was told until now.
    fn hear(&mut self) {
        loop {
            match self.told.recv_timeout(Duration::ZERO) {
                Ok(told) => self.events.push(told),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Makes a picture of the page.
    #[track_caller]
    pub(crate) fn picture(&mut self, path: &Path) {
        let told = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let text = told["data"].as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        std::fs::write(path, bytes.expect("base64")).expect("write the picture");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
