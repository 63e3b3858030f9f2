-- A wait was given up, and may have used up a wake-up: wake another if there is work. The call by
-- name comes first, so if the server still waits on behalf of the one that is gone, that takes it.
-- ARGV: 1 worker, 2 ms for which its call is kept.

-- include queue_common

call('ZADD', WAKE .. ':' .. ARGV[1], 0, 1)
call('PEXPIRE', WAKE .. ':' .. ARGV[1], ARGV[2])
news = true
ring(call('HGET', CTL, 'paused'))
return 1
