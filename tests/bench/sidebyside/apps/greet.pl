# A preforking greeter in Perl: PORT WORKERS.
use strict;
use warnings;
use IO::Socket::INET;
my ($port, $workers) = @ARGV;
my $listener = IO::Socket::INET->new(
    LocalAddr => "127.0.0.1", LocalPort => $port, Listen => 1024, ReuseAddr => 1
) or die $!;
for (1 .. $workers) {
    next if fork;
    while (my $connection = $listener->accept) {
        print $connection "Hello from Perl (pid $$)\r\n";
        close $connection;
    }
}
1 while wait > 0;
