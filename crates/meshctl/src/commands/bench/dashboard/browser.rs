//! A Chromium without a window, driven over its DevTools protocol.
//!
//! The protocol is JSON in pieces that end with a zero byte, over two pipes that the browser finds as descriptors 3 and
//! 4 (`--remote-debugging-pipe`). Source: <https://chromedevtools.github.io/devtools-protocol/>, domains Target, Page,
//! Network and Runtime.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shell gives the browser the two pipes where it looks for them.
const LAUNCH: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#;

const FLAGS: [&str; 8] = [
    "--headless=new",
    "--remote-debugging-pipe",
    // Its sandbox needs what containers forbid; it opens only the page of our own lab.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-extensions",
];

/// A running browser with one page. It ends when it is dropped.
#[derive(Debug)]
pub struct Browser {
    _process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    _profile: TempDir,
}

impl Browser {
    /// The browser's program; `None` if there is none.
    pub fn program() -> Option<PathBuf> {
        if let Some(named) = std::env::var_os("CHROMIUM") {
            return Some(named.into());
        }
        let folders = std::env::var_os("PATH")?;
        let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
        let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
        let mut found = names
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        found.find(|path| path.is_file())
    }

    /// Starts it with an empty page.
    ///
    /// # Errors
    ///
    /// If it does not start, or does not speak the protocol.
    pub async fn start(program: PathBuf) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir().context("cannot make a folder for the browser")?;
        let mut process = Command::new("sh")
            .args(["-c", LAUNCH])
            .arg(&program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let to = process.stdin.take().context("the browser has no input")?;
        let from = process.stdout.take().context("the browser has no output")?;
        let mut browser = Self {
            _process: process,
            to,
            from: BufReader::new(from),
            session: None,
            last: 0,
            _profile: profile,
        };
        let target = browser
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", json!({})).await?;
        browser.call("Network.enable", json!({})).await?;
        Ok(browser)
    }

    /// Runs `script` in every page before anything of the page.
    pub async fn prepare(&mut self, script: &str) -> anyhow::Result<()> {
        let source = json!({ "source": script });
        self.call("Page.addScriptToEvaluateOnNewDocument", source)
            .await
            .map(drop)
    }

    /// Forgets what is kept of earlier pages.
    pub async fn clear_cache(&mut self) -> anyhow::Result<()> {
        self.call("Network.clearBrowserCache", json!({})).await.map(drop)
    }

    /// Goes to `url`.
    pub async fn go(&mut self, url: &str) -> anyhow::Result<()> {
        let went = self.call("Page.navigate", json!({ "url": url })).await?;
        match went["errorText"].as_str() {
            Some(error) => bail!("the browser cannot open {url}: {error}"),
            None => Ok(()),
        }
    }

    /// What `script` gives in the page; of a promise what it is fulfilled with.
    pub async fn evaluate(&mut self, script: &str) -> anyhow::Result<Value> {
        let how = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let mut told = self.call("Runtime.evaluate", how).await?;
        if let Some(exception) = told.get("exceptionDetails") {
            bail!("the page threw: {exception}");
        }
        Ok(told["result"]["value"].take())
    }

    async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        let answering = async {
            self.to.write_all(&bytes).await?;
            loop {
                let mut bytes = Vec::new();
                self.from.read_until(0, &mut bytes).await?;
                if bytes.pop() != Some(0) {
                    bail!("the browser has ended");
                }
                let mut answer: Value = serde_json::from_slice(&bytes)?;
                // What has no id tells what happens, which nobody asked for here.
                if answer["id"] == self.last {
                    return match answer.get("error") {
                        Some(error) => bail!("the browser refuses: {error}"),
                        None => Ok(answer["result"].take()),
                    };
                }
            }
        };
        timeout(PATIENCE, answering)
            .await
            .with_context(|| format!("the browser did not answer to {method}"))?
            .with_context(|| format!("cannot have the browser do {method}"))
    }
}
