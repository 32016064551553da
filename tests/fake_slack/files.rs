//! Files: an upload in three steps, and what became of each.

use serde_json::{Value, json};

use super::args::Args;
use super::http::Reply;
use super::methods::{Answer, because, refuse};
use super::state::State;
use super::{Request, Upload};

impl State {
    /// The first step: a place to put so many bytes.
    pub(super) fn reserve_upload(&mut self, args: &Args<'_>, host: &str) -> Answer {
        self.need("files:write")?;
        let name = args.required("filename")?.to_owned();
        let length = args.required("length")?.parse::<usize>().ok().filter(|length| *length > 0);
        let length = length.ok_or_else(|| refuse("missing_argument"))?;
        let id = format!("F{:08}", self.uploads.len());
        let upload_url = format!("http://{host}/upload/{id}");
        self.uploads.push(Upload {
            id: id.clone(),
            name,
            length,
            title: None,
            content: None,
            channel: None,
            thread_ts: None,
        });
        Ok(json!({ "upload_url": upload_url, "file_id": id }))
    }

    /// The second step: the bytes, without a token.
    pub(super) fn receive_upload(&mut self, request: &Request) -> Reply {
        if request.header("authorization").is_some() {
            return Reply::text(400, "an upload carries no token");
        }
        let id = request.path.trim_start_matches("/upload/").to_owned();
        match self.uploads.iter_mut().find(|upload| upload.id == id) {
            Some(upload) if upload.length == request.body.len() => {
                upload.content = Some(String::from_utf8_lossy(&request.body).into_owned());
                Reply::text(200, &format!("OK - {}", request.body.len()))
            }
            Some(_) => Reply::text(400, "the length is another one"),
            None => Reply::text(404, "no such upload"),
        }
    }

    /// The third step: into a channel, or a thread of it.
    pub(super) fn complete_upload(&mut self, args: &Args<'_>) -> Answer {
        self.need("files:write")?;
        let wanted = args.required("channel_id")?.to_owned();
        let Some(channel) = self.channels.iter().find(|channel| channel.id == wanted) else {
            return Err(refuse("channel_not_found"));
        };
        if !channel.member {
            return Err(refuse("not_in_channel"));
        }
        let thread = args.text("thread_ts")?;
        if thread.is_some_and(|ts| !channel.messages.contains_key(ts)) {
            return Err(because("invalid_arguments", "thread_ts names no message"));
        }
        let thread = thread.map(str::to_owned);
        let files = args.0.get("files").and_then(Value::as_array).cloned().unwrap_or_default();
        for file in &files {
            let id = file["id"].as_str().unwrap_or_default();
            let found = self.uploads.iter_mut().find(|upload| upload.id == id && upload.content.is_some());
            let Some(upload) = found else { return Err(refuse("file_not_found")) };
            upload.title = file["title"].as_str().map(str::to_owned);
            upload.channel = Some(wanted.clone());
            upload.thread_ts.clone_from(&thread);
        }
        Ok(json!({ "files": files }))
    }
}
