# A preforking greeter in Ruby: PORT WORKERS.
require "socket"
listener = TCPServer.new("127.0.0.1", ARGV[0].to_i)
listener.listen(1024)
ARGV[1].to_i.times do
  fork do
    loop do
      connection = listener.accept
      connection.write("Hello from Ruby (pid #{Process.pid})\r\n")
      connection.close
    end
  end
end
Process.waitall
