//! Each rule of DELIVERY §3 by itself.
