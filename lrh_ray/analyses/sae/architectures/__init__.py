"""One file for each kind of autoencoder that trains with dense codes; `architecture` says what it has to give."""
