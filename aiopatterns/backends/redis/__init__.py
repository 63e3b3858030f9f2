"""Redis as a backend: the client, the seven protocols over it, and a private server to start."""
