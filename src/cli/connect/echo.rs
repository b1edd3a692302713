//! `ringgate connect` at `/echo`: each line that is typed is sent as text, and comes back.

use std::net::TcpStream;

use tungstenite::{Message, WebSocket};

use super::json::printable;
use super::{Speaker, leave, send};

/// See the module.
pub struct EchoConsole(pub WebSocket<TcpStream>);

impl Speaker for EchoConsole {
    fn note(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn carry_out(&mut self, line: &str) -> Result<bool, String> {
        if line == "quit" {
            return Ok(false);
        }
        send(&mut self.0, Message::text(line))?;
        Ok(true)
    }

    fn describe(&self, message: &[u8]) -> String {
        printable(&String::from_utf8_lossy(message))
    }

    fn waits(&self) -> bool {
        false
    }

    fn is_refused(&self) -> bool {
        false
    }

    fn leave(&mut self) {
        leave(&mut self.0);
    }
}
