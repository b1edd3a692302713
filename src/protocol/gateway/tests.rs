//! Golden messages of dialect A and properties of its parser.
