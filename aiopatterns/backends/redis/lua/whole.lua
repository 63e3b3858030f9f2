-- While a cluster moves the slot, a command over several keys that are not there is refused, by the
-- old node and by the new one: so nothing below is ever half done, though a key may vanish under it.
redis.call('EXISTS', KEYS[1] .. ':moving', KEYS[1] .. ':moved')
