//! Input of a connection that is not read yet, and whether it is all that will come.

/// Input that waits; a word while there is none.
#[derive(Default)]
pub struct Stash(Option<Box<Input>>);

#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// The client sent FIN behind it.
    is_all: bool,
}

impl Stash {
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |input| input.bytes.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes; what is known of their end stays.
    pub fn take(&mut self) -> Vec<u8> {
        let is_all = self.is_all();
        let bytes = self.0.take().map_or_else(Vec::new, |input| input.bytes);
        self.0 = is_all.then(|| Box::new(Input { is_all, ..Input::default() }));
        bytes
    }

    pub fn put(&mut self, bytes: Vec<u8>) {
        let is_all = self.is_all();
        self.0 = (is_all || !bytes.is_empty()).then(|| Box::new(Input { bytes, is_all }));
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().bytes.extend_from_slice(bytes);
        }
    }

    /// Nothing will come behind it.
    pub fn end(&mut self) {
        self.0.get_or_insert_default().is_all = true;
    }

    /// Whether nothing will come behind it.
    pub fn is_all(&self) -> bool {
        self.0.as_ref().is_some_and(|input| input.is_all)
    }
}
